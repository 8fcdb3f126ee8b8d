"""Find what a network computes in training mode only.

A graph traced in evaluation mode does not hold it.

Dropout and batch norms are modules in the graph and follow the mode by themselves. An auxiliary head behind
``if self.training``, a path that is dropped at random, a mask that only training sees: these are gone. Both modes
are traced and compared, node by node.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from hessrank.data.batch import Batch
from hessrank.network.frozen_model import freeze
from hessrank.network.layer_names import node_kind
from hessrank.network.sample_batches import tensor_bytes
from hessrank.network.walks.fx_walk import GraphWalk
from hessrank.text import first_line, listed

DROPOUTS: Mapping[Any, type[nn.Module]] = {
    F.dropout: nn.Dropout,
    F.dropout1d: nn.Dropout1d,
    F.dropout2d: nn.Dropout2d,
    F.dropout3d: nn.Dropout3d,
    F.alpha_dropout: nn.AlphaDropout,
    F.feature_alpha_dropout: nn.FeatureAlphaDropout,
}
"""Functions of torch that tracing turns into modules, which follow the mode."""

_TENSOR = object()
"""Stands for any node among arguments."""

_COST = (
    "what needs that (a term of the loss, a regularization) is gone from training: train with it in float first, or "
    "let forward compute it in evaluation mode too"
)


@dataclass(frozen=True)
class _Step:
    """A node of a graph, told apart from others.

    Attributes:
        place: where it is, as :func:`_place` says.
        own: what it computes, whatever it reads.
        whole: a hash of what it computes with all that goes into it.
    """

    place: str
    own: Hashable
    whole: int

    @classmethod
    def of(cls, node: fx.Node, before: Mapping[fx.Node, _Step], constant: Hashable | None) -> _Step:
        """Describe a node by what it computes and what it reads.

        Args:
            node: the node.
            before: the steps of the nodes that it may read.
            constant: what it holds, if it is a tensor that forward makes of numbers.
        """
        read: list[fx.Node] = []
        fx.map_arg((node.args, node.kwargs), read.append)  # what it reads twice, twice
        inputs = tuple(before[source].whole for source in read)
        if constant is not None:
            return cls("constant", constant, hash((constant, inputs)))
        options = dict(node.kwargs)
        if node.target in DROPOUTS:
            options.pop("training", None)
        own = node.op, node.target, repr(fx.map_arg((node.args, options), _blank))
        return cls(_place(node), own, hash((own, inputs)))


@dataclass(frozen=True)
class _Form:
    """What forward computes in one mode.

    Attributes:
        steps: its nodes, but for the last.
        returned: the nest that it returns.
        result: a hash of that nest with all that goes into it.
        parameters: names of the parameters that take part.
    """

    steps: list[_Step]
    returned: Any
    result: int
    parameters: frozenset[str]


def training_notes(model: nn.Module, batch: Batch) -> tuple[str, ...]:
    """Say what training mode computes beyond evaluation, and what is unused.

    A sentence on each: the computation, and parameters in no use.

    Args:
        model: any network that torch.fx can trace in evaluation mode; untouched.
        batch: one sample.

    Raises:
        Exception: whatever torch.fx raises on a network that it cannot trace in evaluation mode.
    """
    evaluation = _form(model, batch, training=False)
    counts = {name: p.numel() for name, p in model.named_parameters() if name not in evaluation.parameters}
    try:
        training = _form(model, batch, training=True)
    except Exception as error:  # torch.fx raises anything at all on code that it cannot follow
        why = f"forward takes a way in training mode that torch.fx cannot follow ({first_line(error)})"
        parts = [_left_out(counts, evaluation)] if counts else []
        return (_sentence(why, parts),)
    parts = _differences(evaluation, training, counts)
    notes = [_sentence("forward computes something else in training mode", parts)] if parts else []
    idle = {name: count for name, count in counts.items() if name not in training.parameters}
    if idle:
        notes.append(f"{_left_out(idle, evaluation)}, which forward never uses")
    return tuple(notes)


def _sentence(what: str, parts: Iterable[str]) -> str:
    return "; ".join([f"{what}, and only its evaluation form is kept", *parts, _COST])


def _differences(evaluation: _Form, training: _Form, counts: Mapping[str, int]) -> list[str]:
    """Return how two forms differ, in words."""
    if _wholes(evaluation) == _wholes(training):
        return []
    parts = []
    if gone := _beyond(training, evaluation):
        lost = sum(count for name, count in counts.items() if name in training.parameters)
        parts.append(f"left out: {_shortened(gone, evaluation)}" + (f" ({lost:,} parameters)" if lost else ""))
    if stays := _beyond(evaluation, training):
        parts.append(f"computed in training too: {_shortened(stays, training)}")
    if changed := _changed(evaluation, training, gone, nothing_yet=not parts):
        parts.append(f"computed as in evaluation: {listed(changed)}")
    if evaluation.returned != training.returned:
        before, now = (sum(leaf is _TENSOR for leaf in tree_leaves(f.returned)) for f in (training, evaluation))
        count = f"{now} tensor{'s' * (now != 1)}, not {before} tensor{'s' * (before != 1)}"
        parts.append(f"returns {count}" if now != before else "returns its tensors in another nest")
    return parts or ["returns other tensors"]


def _changed(evaluation: _Form, training: _Form, gone: Collection[str], *, nothing_yet: bool) -> list[str]:
    """Return where both forms compute something, but not the same.

    Of the same with other inputs only the first.
    """
    known = {(step.place, step.own) for step in evaluation.steps}
    places = [step.place for step in training.steps if step.place not in gone and (step.place, step.own) not in known]
    if not places and nothing_yet:
        wholes = {step.whole for step in evaluation.steps}
        places = [step.place for step in training.steps if step.whole not in wholes][:1]
    return list(dict.fromkeys(places))


def _left_out(counts: Mapping[str, int], kept: _Form) -> str:
    return f"left out: {_shortened(counts, kept)} ({sum(counts.values()):,} parameters)"


def _wholes(form: _Form) -> tuple[Counter[int], int]:
    return Counter(step.whole for step in form.steps), form.result


def _beyond(one: _Form, other: _Form) -> list[str]:
    """Return the places where one form does more than the other."""
    more = Counter(step.place for step in one.steps) - Counter(step.place for step in other.steps)
    return list(more)


def _shortened(names: Iterable[str], kept: _Form) -> str:
    """Shorten a list of paths by modules of which nothing is kept.

    Such a module stands for all inside it.
    """
    alive = {start for step in kept.steps for start in _starts(step.place)}
    alive |= {start for name in kept.parameters for start in _starts(name)}
    return listed(dict.fromkeys(next((s for s in _starts(name) if s not in alive), name) for name in names))


def _starts(path: str) -> Iterator[str]:
    """Yield a path's beginnings, the shortest first, itself last."""
    parts = path.split(".")
    return (".".join(parts[: count + 1]) for count in range(len(parts)))


def _form(model: nn.Module, batch: Batch, *, training: bool) -> _Form:
    """Trace ``model`` in one mode."""
    with freeze(model):
        model.train(training)
        torch.manual_seed(0)  # a forward that draws numbers draws the same ones in both modes
        random.seed(0)
        np.random.seed(0)
        before = set(vars(model))
        graph = GraphWalk(model, batch).graph
        made = {name: value for name, value in vars(model).items() if name not in before}
    constants = {name: tensor_bytes(value) for name, value in made.items() if isinstance(value, Tensor)}
    steps: dict[fx.Node, _Step] = {}
    for node in graph.nodes:
        steps[node] = _Step.of(node, steps, constants.get(str(node.target)) if node.op == "get_attr" else None)
    output, last = steps.popitem()
    returned = fx.map_arg(output.args[0], _blank)
    return _Form(list(steps.values()), returned, last.whole, frozenset(_parameters(model, graph)))


def _blank(node: fx.Node) -> Any:
    return _TENSOR


def _place(node: fx.Node) -> str:
    """Return the path of what a node calls or takes.

    Of a function, the module in which it stands and its name.
    """
    if node.op in ("call_module", "get_attr"):
        return str(node.target)
    modules = [str(path) for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return ".".join(filter(None, (*modules[-1:], node_kind(node))))


def _parameters(model: nn.Module, graph: fx.Graph) -> Iterator[str]:
    """Yield the names of the parameters that take part in a graph.

    Every name of one that has several.
    """
    targets = {str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")}
    named = dict(model.named_parameters(remove_duplicate=False))
    used = {id(parameter) for name, parameter in named.items() if not targets.isdisjoint(_starts(name))}
    return (name for name, parameter in named.items() if id(parameter) in used)
