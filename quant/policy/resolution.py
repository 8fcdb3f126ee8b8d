"""Resolve what a policy means for a network.

Scheme, method and observer of every weight and every grid, and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.layer_graph.quantizer_placement import QuantizerPlacement, place_quantizers
from hessrank.quant.policy.errors import PolicyError
from hessrank.quant.policy.model import INPUT_LAYER, Part, Policy
from hessrank.quant.scheme import Scheme


@dataclass(frozen=True)
class Setting:
    """How one tensor is quantized.

    Attributes:
        scheme: bits and grid.
        method: name of the fake-quantization method.
        observer: name of the observer.
        reason: ``policy line 12``, ``policy`` (made in memory), ``tied to X``, ``input_layer`` or ``default``.
    """

    scheme: Scheme
    method: str
    observer: str
    reason: str


@dataclass(frozen=True)
class Resolution:
    """The settings of a network.

    Attributes:
        activations: by grid, all of ``placement.grids``.
        weights: by name of the parameter, all of ``placement.weights``.
    """

    activations: Mapping[str, Setting]
    weights: Mapping[str, Setting]


def excluded_layers(policy: Policy, graph: Graph) -> tuple[str, ...]:
    """Return the layers that stay in float.

    A module that holds others stands for all of them.
    """
    lists = policy.extra_quantizer_dict
    modules, names = set(lists.exclude_module_name), set(policy.excluded)
    return tuple(layer for layer in graph.nodes if layer in names or not modules.isdisjoint(modules_around(layer)))


def modules_around(layer: str) -> Iterable[str]:
    """Return the names of the modules that hold a layer, the outermost first."""
    steps = layer.split(".")
    return (".".join(steps[:count]) for count in range(1, len(steps)))


def place_policy_quantizers(policy: Policy, graph: Graph) -> QuantizerPlacement:
    """Return where the quantizers of a policy belong."""
    named = find_claims(policy, graph)
    return place_quantizers(graph, named=named, excluded=excluded_layers(policy, graph))


def find_claims(policy: Policy, graph: Graph) -> dict[str, str]:
    """Return the layers whose activation the policy names, with the entry that does.

    ``input_layer`` names every input that has no entry of its own. Should a layer bear that name, an entry with
    ``weight`` or ``activation`` is that layer's.
    """
    named = policy.named_activations
    found = {name: name for name in named if name in graph.nodes}
    if INPUT_LAYER in named:
        is_layer = INPUT_LAYER in graph.nodes and INPUT_LAYER not in graph.inputs
        if not is_layer or isinstance(policy.layers[INPUT_LAYER], str):
            found.pop(INPUT_LAYER, None)
            found |= {name: INPUT_LAYER for name in graph.inputs if name not in found}
    return found


def resolve(policy: Policy, graph: Graph, placement: QuantizerPlacement) -> Resolution:
    """Return the settings that a policy gives to a network.

    Args:
        policy: the policy; names that the network lacks are not looked at (``check`` finds them).
        graph: the network.
        placement: where its quantizers belong, from ``place_policy_quantizers``.

    Raises:
        PolicyError: two entries contradict each other; the message names both with their lines.
    """
    found, conflicts = settle(policy, graph, placement)
    if conflicts:
        raise conflicts[0]
    return found


def settle(policy: Policy, graph: Graph, placement: QuantizerPlacement) -> tuple[Resolution, list[PolicyError]]:
    """Return the settings and all contradictions.

    The first entry wins in each; otherwise as ``resolve``.
    """
    conflicts: list[PolicyError] = []
    weights = {
        weight: Setting(scheme, policy.weight_method, policy.weight_observer, reason)
        for weight, (scheme, reason) in _weights(policy, placement, conflicts).items()
    }
    activations = {
        grid: Setting(scheme, policy.activation_method, policy.activation_observer, reason)
        for grid, (scheme, reason) in _activations(policy, graph, placement, conflicts).items()
    }
    return Resolution(activations, weights), conflicts


@dataclass(frozen=True)
class _Claim:
    """What an entry asks of a layer's tensor."""

    layer: str
    entry: str
    scheme: Scheme


_Choice = tuple[Scheme, str]


def _weights(policy: Policy, placement: QuantizerPlacement, conflicts: list[PolicyError]) -> dict[str, _Choice]:
    named, default = policy.named_weights, policy.weight_scheme()
    found: dict[str, _Choice] = {}
    for weight, layers in placement.weights.items():
        entries = [layer for layer in layers if layer in named]
        conflicts += _disagreement(policy, "weight", entries)
        found[weight] = (named[entries[0]], _line(policy, "weight", entries[0])) if entries else (default, "default")
    return found


def _activations(
    policy: Policy, graph: Graph, placement: QuantizerPlacement, conflicts: list[PolicyError]
) -> dict[str, _Choice]:
    named, default = policy.named_activations, policy.activation_scheme()
    claimed: dict[str, list[_Claim]] = {}
    for layer, entry in find_claims(policy, graph).items():
        grid = placement.grid_of[layer]
        if grid is not None:
            claimed.setdefault(grid, []).append(_Claim(layer, entry, named[entry]))
    found = dict.fromkeys(placement.grids, (default, "default"))
    for grid, asked in claimed.items():
        conflicts += _disagreement(policy, "activation", [claim.entry for claim in asked])
        first = next((claim for claim in asked if claim.layer == grid), asked[0])
        reason = INPUT_LAYER if first.entry != first.layer else _line(policy, "activation", first.entry)
        found[grid] = (first.scheme, reason if first.layer == grid else f"tied to {first.layer}")
    for group in placement.tied:
        leaders = [claimed[grid][0] for grid in group if grid in claimed]
        for other in leaders[1:]:
            if other.scheme.bits != leaders[0].scheme.bits:
                why = "an addition ties their bits"
                conflicts.append(policy.contradiction("activation", leaders[0].entry, other.entry, why))
        if leaders:
            tied = (replace(default, bits=leaders[0].scheme.bits), f"tied to {leaders[0].layer}")
            found |= {grid: tied for grid in group if grid not in claimed}
    return found


def _disagreement(policy: Policy, part: Part, entries: Sequence[str]) -> list[PolicyError]:
    try:
        policy.weight_scheme(*entries) if part == "weight" else policy.activation_scheme(*entries)
    except PolicyError as error:
        return [error]
    return []


def _line(policy: Policy, part: Part, entry: str) -> str:
    place = policy.position(entry, part)
    return f"policy line {place.line}" if place else "policy"
