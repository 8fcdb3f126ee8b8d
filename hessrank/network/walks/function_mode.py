"""Watches functions between the modules of a network torch.fx cannot trace.

A hook sees a module's output and nothing of ``x + y``, ``torch.matmul`` or ``F.scaled_dot_product_attention`` in its
``forward``. A ``TorchFunctionMode`` sees them all. A call is named by the module whose ``forward`` makes it and by
the word and the number that torch.fx would give it: ``encoder.layer.0.output.add``, ``….add_1``.

Looked into are modules that hold other modules, and the network itself. A module without any inside (an activation, a
norm written by hand) is one layer, and so is whatever torch.nn brings along, as torch.fx has it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from hessrank.network.layer_names import REARRANGEMENTS, Names
from hessrank.network.walks.call import Call, Visit, first_tensor, visit_nest

# Operators whose method has another name than torch.fx takes from the operator.
_WORDS = {"rsub": "sub", "rdiv": "truediv", "rtruediv": "truediv", "rpow": "pow", "rmul": "mul", "rmatmul": "matmul"}


class FunctionCalls(TorchFunctionMode):
    """Shows the floating-point tensors that functions compute.

    Functions that only move or select values are not shown.

    Neither are calls under ``torch.no_grad`` (where the network itself sets it), calls that return a tensor they were
    given (dropout in evaluation), and what autograd cannot follow (``zeros_like``). They do take part in the
    numbering, so that every run gives the same names.
    """

    def __init__(self, modules: Mapping[str, nn.Module], names: Names, visit: Visit, data: Iterable[Tensor]) -> None:
        """Prepare for one run.

        Args:
            modules: the network's modules by path, itself under "".
            names: where names come from.
            visit: what the values are shown to.
            data: the network's inputs, of any type.
        """
        super().__init__()
        own = {p: m for p, m in modules.items() if not f"{type(m).__module__}.".startswith("torch.nn.")}
        self._looked_into = {path for path, module in own.items() if path == "" or _holds_modules(module)}
        self._names, self._visit = names, visit
        self._within: list[str] = []  # paths of the modules that are running
        self._aside = False  # whether those who are shown a value are at work: their own calls are not the network's
        self._recorded = torch.is_grad_enabled()
        self._origins: MutableMapping[Tensor, tuple[bool, bool]] = WeakIdKeyDictionary()  # from data, from weights
        self._shown: MutableMapping[Tensor, int] = WeakIdKeyDictionary()  # the version in which it was shown
        self._moved: MutableMapping[Tensor, int] = WeakIdKeyDictionary()  # the same of what is shown rearranged
        for tensor in data:
            self._origins[tensor] = (True, False)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one function of torch, and show what it returns."""
        kwargs = kwargs or {}
        if self._aside:
            return func(*args, **kwargs)
        given = {leaf: leaf._version for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        value = func(*args, **kwargs)
        word = _find_word(func)
        made = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
        if word == "setitem":
            made = [args[0]]
        elif any(given.get(tensor) == tensor._version for tensor in made):
            return value  # handed on
        from_data, from_weights = self._find_origin(given)
        self._origins.update({t: (from_data, from_weights and t.is_floating_point()) for t in made})
        if word in REARRANGEMENTS:
            if any(tensor in self._shown or tensor in self._moved for tensor in given):
                self._moved.update({tensor: tensor._version for tensor in made})
            return value
        floating = [tensor for tensor in made if tensor.is_floating_point()]
        if not floating or not self._within or self._within[-1] not in self._looked_into:
            return value
        name = self._names.for_function(self._within[-1], word)
        lost = any(t.requires_grad for t in given) and not any(t.requires_grad for t in floating)
        if word == "setitem" or lost or self._recorded != torch.is_grad_enabled():
            return value
        call = Call(name, word, None, None, first_tensor(args, kwargs), from_data, from_weights)
        return visit_nest(value, lambda place: replace(call, name=name + place), self._show)

    def show_module(self, call: Call, value: Tensor) -> Tensor:
        """Show the value that a module returned, unless it was shown before.

        It was if the module handed it on, or holds modules that made it but for a reshape.
        """
        moves_nothing = value is call.input or (call.module is not None and _holds_modules(call.module))
        known = (self._shown, self._moved) if moves_nothing else (self._shown,)
        if any(value in tensors and tensors[value] == value._version for tensors in known):
            return value
        from_data, from_weights = self._origins.get(value, (call.from_data, call.from_weights))
        from_data, from_weights = from_data or value.requires_grad, from_weights or call.from_weights
        return self._show(replace(call, from_data=from_data, from_weights=from_weights), value)

    def show_input(self, call: Call, value: Tensor) -> Tensor:
        """Show an input of the network."""
        return self._show(call, value)

    @contextmanager
    def following(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Follow which of ``modules`` is running, and watch its functions."""

        def enter(path: str) -> Callable[..., None]:
            return lambda *_: self._within.append(path)

        def leave(path: str) -> Callable[..., None]:
            def hook(*_: Any) -> None:
                while self._within.pop() != path:  # a module inside raised something that was caught
                    pass

            return hook

        with ExitStack() as stack:
            for path, module in modules.items():
                stack.callback(module.register_forward_pre_hook(enter(path)).remove)
                stack.callback(module.register_forward_hook(leave(path)).remove)
            stack.enter_context(self)
            yield

    def _show(self, call: Call, value: Tensor) -> Tensor:
        self._aside = True
        try:
            value = self._visit(call, value)
            self._shown[value] = value._version
        finally:
            self._aside = False
        self._origins[value] = (call.from_data, call.from_weights)
        return value

    def _find_origin(self, tensors: Collection[Tensor]) -> tuple[bool, bool]:
        """Return whether data, and whether weights, have a part in ``tensors``."""
        known = [self._origins.get(tensor, (False, False)) for tensor in tensors]
        from_data = any(data for data, _ in known) or any(tensor.requires_grad for tensor in tensors)
        from_weights = any(weights for _, weights in known) or any(isinstance(t, nn.Parameter) for t in tensors)
        return from_data, from_weights


def _holds_modules(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _find_word(func: Callable[..., Any]) -> str:
    """Return torch.fx's word for a function: ``add``, ``truediv``, ``softmax``."""
    if func is Tensor.div:  # what `x / y` calls
        return "truediv"
    name = str(getattr(func, "__name__", func)).partition(".")[0]  # ``add.Tensor`` of torch.ops
    name = name[2:-2] if name.startswith("__") and name.endswith("__") else name
    return _WORDS.get(name, name)
