"""Walks by forward hooks through a network that torch.fx cannot trace.

Module calls have the names they would have in a graph. What happens between modules in plain functions is shown by
:mod:`function_mode`. A module that hands on what was shown already (dropout in evaluation, a block that ends in an
addition) is not shown again.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from hessrank.data.batch import Batch
from hessrank.network.layer_names import Names, module_paths
from hessrank.network.walks.call import Call, Visit, first_tensor, visit_nest
from hessrank.network.walks.function_mode import FunctionCalls

OUTPUT = "output"  # what the whole network returns, where no module inside it returned the very tensor


class HookWalk:
    """Calls the model itself, with hooks on all its modules during the call."""

    def __init__(self, model: nn.Module) -> None:
        """Remember the modules; hooks come and go with each call."""
        self._model = model
        self._modules = dict(model.named_modules())
        self._reserved = module_paths(model)

    def __call__(self, batch: Batch, visit: Visit) -> Any:
        """Run the model on ``batch``; its inputs are shown first."""
        arguments = inspect.signature(self._model.forward).bind(*batch.args, **batch.kwargs)
        names = Names(self._reserved)
        given = [leaf for leaf in tree_leaves((batch.args, batch.kwargs)) if isinstance(leaf, Tensor)]
        functions = FunctionCalls(self._modules, names, visit, given)
        for parameter, value in arguments.arguments.items():

            def call_at(place: str, parameter: str = parameter) -> Call:
                return Call(names.for_node(parameter + place), "input", None, None, None)

            arguments.arguments[parameter] = visit_nest(value, call_at, functions.show_input)
        with hooked(self._modules, functions.show_module, names), functions.following(self._modules):
            return self._model(*arguments.args, **arguments.kwargs)


@contextmanager
def hooked(
    modules: Mapping[str, nn.Module], visit: Visit, names: Names | None = None
) -> Iterator[WeakIdKeyDictionary]:
    """Show the output of every call of ``modules`` to ``visit``, in the block.

    A module that returns just what a module inside it returned is not shown again. Of several tensors in
    one output each is shown, named by its place (``lstm[0]``); a single one has the module's bare name.

    Args:
        modules: the modules by path.
        visit: what their outputs are shown to.
        names: where names come from; None for new ones.

    Yields:
        the tensors shown so far, with the names they were shown under.
    """
    given_out = Names(modules) if names is None else names
    shown: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def hook_for(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            has_children = next(module.children(), None) is not None
            weights = any(True for _ in module.parameters())
            given = first_tensor(args, kwargs)
            name = given_out.for_module(path) if path else given_out.for_node(OUTPUT)

            def call_at(place: str) -> Call:
                return Call(name + place, type(module).__name__, path, module, given, True, weights)

            def show(call: Call, value: Tensor) -> Tensor:
                if has_children and value in shown:
                    return value
                value = visit(call, value)
                shown[value] = call.name
                return value

            return visit_nest(output, call_at, show)

        return hook

    with ExitStack() as stack:
        for path, module in modules.items():
            handle = module.register_forward_hook(hook_for(path), with_kwargs=True)
            stack.callback(handle.remove)
        yield shown
