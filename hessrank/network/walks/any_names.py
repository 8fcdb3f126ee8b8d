"""torch.fx graphs of networks whose modules and tensors have any name.

torch.fx writes a graph down as Python: ``self.in(x)``, or ``getattr(self, "a"b")(x)``, for a module named ``in`` or
``a"b``. :class:`Tracer` makes graphs that are written down right, and copies of them, also out of a pickle, are too.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import fx, nn
from torch.fx.graph import CodeGen, PythonCode


class Tracer(fx.Tracer):
    """A tracer as torch.fx's own, whose graphs may go through modules of any name."""

    def trace(self, root: nn.Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Trace ``root`` with fixed values for ``concrete_args``."""
        graph = super().trace(root, concrete_args)
        graph.set_codegen(AnyNames())
        for node in graph.nodes:
            if node.name == "self":  # which is the network where the graph is written down
                node._rename("self_")
        return graph


class AnyNames(CodeGen):
    """Writes a graph as Python code in which every name is the original."""

    def _gen_python_code(self, nodes: Any, root_module: str, *args: Any, **kwargs: Any) -> PythonCode:
        """Write code with a word for each name that is no Python, then the name."""
        names = {node: str(node.target) for node in nodes if node.op in ("call_module", "get_attr")}
        odd = [node for node, name in names.items() if not all(map(is_plain, name.split(".")))]
        stem = "named"
        while any(name.startswith(stem) for name in names.values()):
            stem += "_"
        try:
            for place, node in enumerate(odd):
                node.target = f"{stem}{place}"
            code = super()._gen_python_code(nodes, root_module, *args, **kwargs)
        finally:
            for node in odd:
                node.target = names[node]
        written = re.sub(
            rf"\b{root_module}\.{stem}(\d+)\b",
            lambda word: _write_path(root_module, names[odd[int(word[1])]]),
            code.src,
        )
        return replace(code, src=written)


def is_plain(name: str) -> bool:
    """Return whether torch.fx writes this name, one step of a path, correctly.

    Python reads identifiers beyond ASCII as other ones that look alike, and torch.fx puts quotes around a number.
    """
    return name.isascii() and (name.isdecimal() or (name.isidentifier() and not keyword.iskeyword(name)))


def _write_path(root: str, path: str) -> str:
    for name in path.split("."):
        root = f"{root}.{name}" if name.isidentifier() and is_plain(name) else f"getattr({root}, {name!r})"
    return root
