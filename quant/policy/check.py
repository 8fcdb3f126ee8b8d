"""Find where a policy and a network do not match.

What cannot be obeyed, and what does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hessrank.quant.layer_graph.graph import Graph, Node
from hessrank.quant.layer_graph.layer_kinds import passes_grid_on
from hessrank.quant.layer_graph.quantizer_placement import QuantizerPlacement
from hessrank.quant.policy.errors import PolicyError, no_such
from hessrank.quant.policy.model import INPUT_LAYER, Part, Policy
from hessrank.quant.policy.positions import FilePosition
from hessrank.quant.policy.resolution import Resolution, find_claims, modules_around, place_policy_quantizers, settle
from hessrank.quant.policy.sections import LayerBits


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a policy for a network.

    Attributes:
        kind: ``error``, the policy cannot be obeyed; ``warning``, an entry does nothing.
        message: what is wrong, without the place.
        line: in the file, from 1; None for a policy made in memory.
        column: in the line, from 1.
        layer: the name that the entry gives.
        file: the file's name; empty for a policy made in memory.
    """

    kind: Literal["error", "warning"]
    message: str
    line: int | None
    column: int | None
    layer: str
    file: str = ""

    def __str__(self) -> str:
        warning = "warning: " if self.kind == "warning" else ""
        return str(PolicyError(warning + self.message, self.file, self.line, self.column))


def check(policy: Policy, graph: Graph) -> list[Finding]:
    """Return all that is wrong with a policy for a network, in the order of the file.

    Errors: names that the network lacks, bare widths of what is no input, entries that contradict each other.
    Warnings: entries that do nothing.
    """
    placement = place_policy_quantizers(policy, graph)
    resolution, conflicts = settle(policy, graph, placement)
    found = [*_unknown(policy, graph), *_bare(policy, graph)]
    found += [_finding("error", conflict, "") for conflict in conflicts]
    found += [*_idle_weights(policy, graph, placement)]
    found += _idle_activations(policy, graph, placement, resolution)
    return sorted(found, key=lambda one: (one.line or 0, one.column or 0))


def require(policy: Policy, graph: Graph) -> list[Finding]:
    """Return the warnings of ``check``.

    Raises:
        PolicyError: the first error of ``check``, and how many more there are.
    """
    found = check(policy, graph)
    errors = [finding for finding in found if finding.kind == "error"]
    if errors:
        first, more = errors[0], f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise PolicyError(first.message + more, first.file, first.line, first.column)
    return found


def _finding(kind: Literal["error", "warning"], error: PolicyError, layer: str) -> Finding:
    return Finding(kind, error.problem, error.line, error.column, layer, error.file)


def _error(policy: Policy, layer: str, problem: str, place: FilePosition | None) -> Finding:
    return _finding("error", policy.error(problem, place), layer)


def _idle(policy: Policy, layer: str, part: Part | None, why: str) -> Finding:
    what = f"the {part} of {layer!r}" if part else repr(layer)
    return _finding("warning", policy.error(f"{what} does nothing: {why}", policy.position(layer, part)), layer)


def _unknown(policy: Policy, graph: Graph) -> Iterator[Finding]:
    """Find names that the network lacks."""
    layers = graph.nodes
    for layer in policy.layers:
        if layer not in layers and layer != INPUT_LAYER:
            yield _error(policy, layer, no_such("layer", layer, layers), policy.position(layer))
    config = policy.extra_quantizer_dict
    modules = dict.fromkeys([*layers, *(module for layer in layers for module in modules_around(layer))])
    for path, names, known in (
        (("extra_quantizer_dict", "exclude_module_name"), config.exclude_module_name, modules),
        (("extra_quantizer_dict", "exclude_node_name"), config.exclude_node_name, layers),
        (("output_layer_list",), policy.output_layer_list, layers),
        (("distill_config",), policy.distill_config, layers),
    ):
        for index, name in enumerate(names):
            if name not in known:
                yield _error(policy, name, no_such("layer", name, known), policy.place(*path, index))


def _bare(policy: Policy, graph: Graph) -> Iterator[Finding]:
    """Find widths that do not say whether they are a weight's or a tensor's.

    Where a layer could have both.
    """
    for layer, entry in policy.layers.items():
        if isinstance(entry, str) and layer in graph.nodes and layer not in (*graph.inputs, INPUT_LAYER):
            problem = f"{layer!r} is no input: write 'weight: {entry}' or 'activation: {entry}' below it"
            yield _error(policy, layer, problem, policy.position(layer, "activation"))


def _idle_weights(policy: Policy, graph: Graph, placement: QuantizerPlacement) -> Iterator[Finding]:
    for layer in policy.named_weights:
        node = graph.nodes.get(layer)
        if node is None:
            if layer == INPUT_LAYER:
                yield _idle(policy, layer, "weight", "inputs have none")
        elif node.weight not in placement.weights:
            other = f"{node.kind} has none" if node.weight is None else "the policy excludes a layer that shares it"
            yield _idle(policy, layer, "weight", placement.float_weights.get(layer, other))


def _idle_activations(
    policy: Policy, graph: Graph, placement: QuantizerPlacement, resolution: Resolution
) -> Iterator[Finding]:
    claimed: dict[str, list[str]] = {}
    for layer, entry in find_claims(policy, graph).items():
        claimed.setdefault(entry, []).append(layer)
    for entry, bits in policy.layers.items():
        if isinstance(bits, LayerBits) and bits.weight is None and bits.activation is None:
            yield _idle(policy, entry, None, "it says neither weight nor activation")
    for entry in policy.named_activations:
        layers = claimed.get(entry, [])
        why = [_why_idle(graph[layer], placement, resolution) for layer in layers]
        if entry == INPUT_LAYER and not layers:
            yield _idle(policy, entry, "activation", "every input has an entry of its own")
        elif why and all(why):
            yield _idle(policy, entry, "activation", why[0])


def _why_idle(node: Node, placement: QuantizerPlacement, resolution: Resolution) -> str:
    """Return why an entry for a layer's activation does nothing.

    Empty if it does something.
    """
    if node.name in placement.unquantized:
        return placement.unquantized[node.name]
    source = placement.grid_of[node.inputs[0]] if passes_grid_on(node) else None
    if source is None:
        return ""
    own, given = (resolution.activations[grid].scheme for grid in (str(placement.grid_of[node.name]), source))
    if given.bits > own.bits:
        return ""
    return f"it hands on values of {given}, the grid of {source!r}; name that layer instead"
