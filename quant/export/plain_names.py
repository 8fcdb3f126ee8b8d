"""Give modules names that torch.export can write down.

It makes Python of them, as torch.fx does, and knows no other way.
"""

from __future__ import annotations

from torch import fx, nn

from hessrank.network.walks.any_names import is_plain

HOLDER = "at_nodes"
"""Where in a module lies what has the name of a node."""

OWN_NAMES = "hessrank_own_names"
"""Where in a converted module's ``meta`` lies what :func:`give_plain_names` returned."""


def give_plain_names(module: fx.GraphModule) -> dict[str, str]:
    """Move what has a name that is no Python to where it has one.

    Return what it was called, by what it is called.

    Args:
        module: changed in place; it must be recompiled.
    """
    called: dict[str, str] = {}
    for node in module.graph.nodes:
        path = str(node.target)
        if node.op not in ("call_module", "get_attr") or all(map(is_plain, path.split("."))):
            continue
        if path not in called:
            called[path] = f"{HOLDER}.{node.name}"
            _move(module, path, called[path])
        node.target = called[path]
    module.delete_all_unused_submodules()
    return {plain: path for path, plain in called.items()}


def own_name(name: str, called: dict[str, str]) -> str:
    """Return the name of a module, or of a tensor in it, as it was before."""
    for plain, path in called.items():
        if name == plain or name.startswith(f"{plain}."):
            return path + name.removeprefix(plain)
    return name


def _move(module: fx.GraphModule, path: str, to: str) -> None:
    owner_path, _, name = path.rpartition(".")
    owner, word = module.get_submodule(owner_path), to.removeprefix(f"{HOLDER}.")
    thing = getattr(owner, name)
    if isinstance(thing, nn.Module):
        module.add_submodule(to, thing)
        return
    if HOLDER not in dict(module.named_children()):
        module.add_submodule(HOLDER, nn.Module())
    delattr(owner, name)
    holder = module.get_submodule(HOLDER)
    if isinstance(thing, nn.Parameter):
        holder.register_parameter(word, thing)
    else:
        holder.register_buffer(word, thing)
