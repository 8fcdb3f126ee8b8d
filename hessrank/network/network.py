"""Runs a network so that each activation can be seen, replaced, differentiated.

Everything in hessrank that looks at activations is a *tap*: it is shown each of them when it is made and
may return what the network shall go on with. Probing, perturbing, calibrating, quantizing one tensor at a
time: all are taps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils._pytree import tree_leaves

from hessrank.data.batch import Batch, describe, naming_remedy
from hessrank.errors import DataError, HessrankError, ModelError
from hessrank.network.curved_layers import find_curved_downstream
from hessrank.network.layer_inputs import find_autograd_output, find_inputs, find_output_layers
from hessrank.network.layer_names import Layer
from hessrank.network.outputs import output_tensors
from hessrank.network.precision import autocast, widen
from hessrank.network.walks.call import Call, Walk
from hessrank.network.walks.fx_walk import GraphWalk
from hessrank.network.walks.hook_walk import HookWalk
from hessrank.out_of_memory import is_out_of_memory
from hessrank.text import dtype_text, first_line, shape_text

_TOKENS = "; an embedding takes token numbers: --data tokens.npz, with an array of integers named input_ids"

Tap = Callable[[Layer, Call, Tensor], Tensor | None]
"""Sees an activation (with its layer and call); returns its replacement, or None to leave it."""


@dataclass(frozen=True)
class Run:
    """One forward pass.

    Attributes:
        output: whatever the network returned.
        roots: the leaves every gradient ends at: inputs, and what an embedding made of integers.
    """

    output: Any
    roots: tuple[Tensor, ...]


class Network:
    """A model, the names of its layers, and a way to run it under a tap.

    Use inside :func:`hessrank.network.frozen_model.freeze`, which freezes the parameters.

    Attributes:
        layers: all layers in the order of execution.
        traced: whether torch.fx could trace the model; if not, hooks do.
        why_hooks: the reason why not; empty if it could.
        left_out: names of views through which the network writes in place: they cannot be watched.
        called: the modules that run, whether or not they yield a layer.
        curved: names of the layers that have something curved (not piecewise linear) between them and the
            output, the loss apart, and the name of that operation (``{"fc1": "Gelu"}``).
        inputs: names of the layers that each layer reads, in the order of the arguments.
        outputs: names of the layers that the network returns.
        nodes: the torch.fx node that yields each layer's tensor; empty if torch.fx cannot trace the model.
        inside: names of the layers without such a node: they lie within a module that torch.fx does not look into.
        floating: the torch.fx nodes that yield a floating-point tensor, layers or not.
        from_data: the torch.fx nodes whose tensors depend on the data.
    """

    def __init__(self, model: nn.Module, example: Batch) -> None:
        """Find the layers by running ``model`` on ``example``.

        Raises:
            DataError: the model does not take such an input.
            ModelError: it has no activation, or no output, to differentiate.
        """
        _check_names(model)
        self.model = model
        self.curved: dict[str, str] = {}
        self.inputs: dict[str, tuple[str, ...]] = {}
        self.outputs: tuple[str, ...] = ()
        self._by_name: dict[str, Layer] = {}
        self._overwritten: frozenset[str] = frozenset()  # activations that something writes to later
        self._stale_inputs: frozenset[str] = frozenset()  # calls whose input something writes to later
        self.left_out: tuple[str, ...] = ()
        with _note_calls(model) as called, torch.no_grad():
            copy = _copy(example)
            reference = _explain_refusal(
                lambda: model(*copy.args, **copy.kwargs), example, naming_remedy(example, model)
            )
        self.called = frozenset(called)
        _check_output(reference)
        self._walk, self.why_hooks = _choose_walk(model, example, reference)
        self.traced = not self.why_hooks
        self._discover(example, reference)
        self.layers = list(self._by_name.values())
        graph_walk = self._walk if isinstance(self._walk, GraphWalk) else None
        self.nodes = {} if graph_walk is None else graph_walk.nodes
        self.floating = frozenset(() if graph_walk is None else graph_walk.floating)
        self.from_data = frozenset(() if graph_walk is None else graph_walk.from_data)
        self.inside = frozenset(self._by_name) - set(self.nodes)

    def run(
        self, batch: Batch, tap: Tap, *, differentiable: bool = False, precision: torch.dtype | None = None
    ) -> Run:
        """Run the network on ``batch`` with every layer shown to ``tap``.

        Args:
            batch: the samples.
            tap: what sees, and may replace, the activations.
            differentiable: record the run for backward passes; otherwise gradients are off.
            precision: half precision for what stands it (autocast), with outputs in float32; None for the
                network's own.

        Raises:
            DataError: the network does not take this batch.
        """
        roots: list[Tensor] = []

        def visit(call: Call, value: Tensor) -> Tensor:
            layer = self._by_name.get(call.name)
            if layer is None:
                return value
            if differentiable and not value.requires_grad:
                value = value.detach().requires_grad_()
                roots.append(value)
            if call.input is not None and call.name in self._stale_inputs:
                call = replace(call, input=call.input.clone())
            shown = tap(layer, call, value)
            value = value if shown is None else shown
            # Nobody can write to a leaf, and who overwrites an activation must spare the one that is watched.
            watched_leaf = value.is_leaf and value.requires_grad
            return value.clone() if watched_leaf or call.name in self._overwritten else value

        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        with torch.enable_grad() if differentiable else torch.no_grad():
            with autocast(precision, device):
                output = _explain_refusal(lambda: self._walk(_copy(batch), visit), batch)
            return Run(output if precision is None else widen(output), tuple(roots))

    def _discover(self, example: Batch, reference: Any) -> None:
        """Find layers, curved operations and overwritten tensors in a recorded run."""
        seen: dict[str, _SeenLayer] = {}

        def visit(call: Call, value: Tensor) -> Tensor:
            is_input = call.kind == "input"
            if not call.from_data or not (call.from_weights or value.requires_grad or is_input):
                return value
            if not value.requires_grad:
                value = value.detach().requires_grad_().clone()
            layer = Layer(call.name, call.kind, len(seen), call.path)
            given = call.input
            seen[call.name] = _SeenLayer(
                layer, value, value._version, value.grad_fn, given, 0 if given is None else given._version
            )
            return value

        with torch.enable_grad():
            output = _explain_refusal(lambda: self._walk(_copy(example), visit), example)
        tensors = output_tensors(output)
        if not any(tensor.requires_grad for tensor in tensors):
            raise ModelError("the network has no activation that depends on its input and reaches its output")
        self.curved = find_curved_downstream(tensors, {name: s.made_by for name, s in seen.items()})
        self._by_name = {name: s.layer for name, s in seen.items()}
        self._overwritten = frozenset(name for name, s in seen.items() if s.value._version != s.version)
        self._stale_inputs = frozenset(
            name for name, s in seen.items() if s.given is not None and s.given._version != s.given_version
        )
        self._drop_aliases(example, reference, {name: s.value for name, s in seen.items()})
        made_by = {name: find_autograd_output(seen[name].value, seen[name].made_by) for name in self._by_name}
        self.inputs, self.outputs = find_inputs(made_by), find_output_layers(tensors, made_by)

    def _drop_aliases(self, example: Batch, reference: Any, values: dict[str, Tensor]) -> None:
        """Leave out views through which the network writes into something else.

        A copy would cut the tie.
        """
        if _are_close(self.run(example, lambda *_: None).output, reference):
            return
        written = {id(values[name]) for name in self._overwritten if values[name]._is_view()}
        aliases = {name for name, value in values.items() if id(value) in written}
        self._overwritten -= aliases
        kept = [layer for name, layer in self._by_name.items() if name not in aliases]
        self._by_name = {layer.name: replace(layer, execution_index=i) for i, layer in enumerate(kept)}
        self.left_out = tuple(sorted(aliases))
        if not _are_close(self.run(example, lambda *_: None).output, reference):
            raise ModelError(
                "the network gives another output when its activations are watched: it draws random numbers, counts "
                "its calls, or writes in place to a tensor that it reads under two names (y = relu_(x); y += x)"
            )


@dataclass(frozen=True)
class _SeenLayer:
    layer: Layer
    value: Tensor
    version: int
    made_by: Node | None
    given: Tensor | None
    given_version: int


def _choose_walk(model: nn.Module, example: Batch, reference: Any) -> tuple[Walk, str]:
    """Return a graph walk if torch.fx traces the model; else hooks and why."""
    try:
        walk = GraphWalk(model, example)
        torch.manual_seed(0)
        with torch.no_grad():
            output = walk(_copy(example), lambda _, value: value)
    except Exception as error:  # torch.fx raises anything at all on code that it cannot follow
        return HookWalk(model), f"torch.fx cannot trace it ({first_line(error)})"
    if not _are_close(output, reference):
        return HookWalk(model), "its torch.fx graph gives another output"
    return walk, ""


@contextmanager
def _note_calls(model: nn.Module) -> Iterator[set[nn.Module]]:
    """Collect the modules that are called inside the block."""
    called: set[nn.Module] = set()
    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(lambda called_one, _: called.add(called_one)).remove)
        yield called


def _check_output(output: Any) -> None:
    leaves = tree_leaves(output)
    if any(isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim for leaf in leaves):
        return
    what = sorted(
        {
            f"{dtype_text(leaf.dtype)} {shape_text(leaf.shape)}" if isinstance(leaf, Tensor) else type(leaf).__name__
            for leaf in leaves
        }
    )
    raise ModelError(
        f"the network returns {', '.join(what) or 'nothing'}: it should return a floating-point tensor "
        "with the samples along its first dimension, or a tuple or dict of such"
    )


def _check_names(model: nn.Module) -> None:
    """Refuse module names with a dot, which stands between steps of a path.

    torch refuses them too, but for ``setattr``.
    """
    for path, module in model.named_modules():
        for name in module._modules:
            if "." in name:
                where = f" in {path!r}" if path else ""
                raise ModelError(
                    f"the module {name!r}{where} has a dot in its name: call it {name.replace('.', '_')!r}"
                )


def _copy(batch: Batch) -> Batch:
    return batch.map(lambda tensor: tensor.detach().clone())


def _are_close(one: Any, other: Any) -> bool:
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=False)
    tensors = [(a.detach(), b.detach()) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor)]
    return bool(tensors) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True) for a, b in tensors
    )


def _explain_refusal(run: Callable[[], Any], batch: Batch, naming: str = "") -> Any:
    """Turn an error of a network into one line that describes the batch.

    A lack of memory goes through.
    """
    torch.manual_seed(0)  # a network that draws random numbers draws the same ones every time
    try:
        return run()
    except Exception as error:
        if isinstance(error, HessrankError) or is_out_of_memory(error):
            raise
        remedy = naming or (_TOKENS if "for embedding" in str(error) else "")
        raise DataError(
            f"the network does not take this input ({describe(batch)}): {first_line(error)}{remedy}"
        ) from error
