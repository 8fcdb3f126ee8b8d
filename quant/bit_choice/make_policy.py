"""Make a policy from a ranking.

A strategy chooses the bits, a list what to distill, every line says why.

Example:
    The first of two layers gets more bits, a weight's and its output's, and a student learns what it puts out:

    >>> import torch
    >>> import hessrank
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1, bias=False))
    >>> _ = [torch.nn.init.ones_(weight) for weight in network.parameters()]
    >>> ranking = hessrank.rank(network, torch.ones(4, 2))
    >>> policy = hessrank.make_policy(ranking, "middle", high_bits=10, budget_bops=720)
    >>> str(policy.weight_scheme("0")), str(policy.weight_scheme("1")), policy.distill_config
    ('10 per_channel_affine', '8 per_channel_affine', ('0',))
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hessrank.analysis.result.ranking import Ranking
from hessrank.errors import OptionError, nearest_first
from hessrank.quant.bit_choice.strategies import STRATEGIES, BitChoice, Problem, choose_hints
from hessrank.quant.layer_graph.layer_kinds import is_addition
from hessrank.quant.policy import INPUT_LAYER, Policy
from hessrank.quant.scheme import Scheme
from hessrank.user_code import user_code

DEFAULT_COEFFICIENT = 0.7


def make_policy(
    ranking: Ranking,
    strategy: str = "sensitive-ends",
    *,
    distill: str = "penultimate",
    distill_count: int | None = None,
    distill_coeff: float = DEFAULT_COEFFICIENT,
    weight_scheme: str = "per_channel_affine",
    activation_scheme: str = "per_tensor_affine",
    method: str = "fixed",
    observer: str = "minmax",
    **options: Any,
) -> Policy:
    """Choose bits and hint layers for a ranked network.

    Args:
        ranking: with its record, which holds the network's graph.
        strategy: ``sensitive-ends``, ``top-k``, ``threshold``, ``budget``, or ``pkg.mod:fn``.
        distill: ``penultimate``, ``top-trace``, ``head``, ``middle``, ``tail``, ``none``, or ``pkg.mod:fn``.
        distill_count: how many layers to distill; None leaves it to ``distill``.
        distill_coeff: coefficient of each in the training loss.
        weight_scheme: grid of the weights.
        activation_scheme: grid of the activations.
        method: fake-quantization method of both, as ``fixed`` or ``lsq``.
        observer: what calibrates both, as ``minmax`` or ``mse``.
        options: the strategy's own, as ``high_bits=10``.

    Returns:
        the policy; ``policy.write(path)`` writes it with a reason behind every line.

    Raises:
        HessrankError: an unknown name, an option that the strategy does not take, an impossible budget.
    """
    problem = Problem.of(ranking)
    decide = STRATEGIES.resolve_or_import(strategy)
    _check_options(strategy, decide, options)
    with user_code(f"the strategy {strategy!r}", OptionError):
        choice = decide(problem, **options)
    if not isinstance(choice, BitChoice):
        raise OptionError(f"the strategy {strategy!r} returned a {type(choice).__name__}, not a BitChoice")
    policy = policy_of(
        problem,
        choice,
        hints=choose_hints(problem, distill, distill_count),
        distill_coeff=distill_coeff,
        weight_scheme=weight_scheme,
        activation_scheme=activation_scheme,
        method=method,
        observer=observer,
    )
    header = ["hessrank policy", f"ranking sha256 {ranking.sha256[:16]}…", f"strategy {strategy}", *choice.notes]
    return policy.with_reasons(_reasons(problem, choice.settled(problem.placement), policy), " · ".join(header))


def policy_of(
    problem: Problem,
    choice: BitChoice,
    *,
    hints: Sequence[str] = (),
    distill_coeff: float = DEFAULT_COEFFICIENT,
    weight_scheme: str = "per_channel_affine",
    activation_scheme: str = "per_tensor_affine",
    method: str = "fixed",
    observer: str = "minmax",
) -> Policy:
    """Write what a strategy chose as a policy, without reasons.

    Arguments as for :func:`make_policy`.
    """
    choice = choice.settled(problem.placement)
    return Policy.of(
        {
            "extra_qconfig_dict": {
                "w_qscheme": _scheme(weight_scheme, choice.base_bits),
                "a_qscheme": _scheme(activation_scheme, choice.base_bits),
                "w_observer": observer,
                "a_observer": observer,
                "w_fakequantize": method,
                "a_fakequantize": method,
            },
            "extra_quantizer_dict": {"special_layer": _entries(problem, choice, weight_scheme, activation_scheme)},
            "output_layer_list": list(hints),
            "distill_config": list(hints),
            "distill_coeff": [distill_coeff] * len(hints),
        }
    )


def _check_options(strategy: str, decide: Any, options: Mapping[str, Any]) -> None:
    """Refuse what a strategy does not take, with the nearest of what it does."""
    known = _options_of(decide)
    for name in options:
        if known is not None and name not in known:
            takes = ", ".join(nearest_first(name, known)) or "no options"
            others = [repr(other) for other in STRATEGIES if name in (_options_of(STRATEGIES.resolve(other)) or ())]
            does = f"; the strategy {' or '.join(others)} does" if others else ""
            raise OptionError(f"the strategy {strategy!r} takes no option {name!r}{does}; it takes {takes}")


def _options_of(decide: Any) -> list[str] | None:
    """Return the names of a strategy's options; None if it takes any."""
    parameters = inspect.signature(decide).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]


def _scheme(word: str, bits: int) -> dict[str, Any]:
    scheme = Scheme.parse(f"{bits} {word}", Scheme(bits))
    return {"bit": bits, "symmetry": scheme.symmetric, "per_channel": scheme.per_channel, "pot_scale": False}


def _entries(problem: Problem, choice: BitChoice, weight_scheme: str, activation_scheme: str) -> dict[str, Any]:
    """Return what differs from the base, layer by layer in the order of execution."""
    inputs = problem.graph.inputs
    bits_of_inputs = {_activation_bits(problem, choice, name) for name in inputs}
    together = len(bits_of_inputs) == 1 and None not in bits_of_inputs and INPUT_LAYER not in problem.graph.nodes
    entries: dict[str, Any] = {INPUT_LAYER: bits_of_inputs.pop()} if together else {}
    for name in problem.graph.nodes:
        if together and name in inputs:
            continue
        weight, activation = _weight_bits(problem, choice, name), _activation_bits(problem, choice, name)
        entry = {"weight": f"{weight} {weight_scheme}"} if weight else {}
        entry |= {"activation": f"{activation} {activation_scheme}"} if activation else {}
        if entry:
            entries[name] = entry
    return entries


def _weight_bits(problem: Problem, choice: BitChoice, name: str) -> int | None:
    """Return the bits of a layer's weight; None if it has none or the base's."""
    weight = problem.graph[name].weight
    bits = choice.weights.get(weight or "", choice.base_bits)
    return None if bits == choice.base_bits else bits


def _activation_bits(problem: Problem, choice: BitChoice, name: str) -> int | None:
    """Return the bits of the quantizer behind a layer.

    None if there is none or it has the base's.
    """
    grid = problem.placement.activations.get(name)
    bits = choice.grids.get(grid or "", choice.base_bits)
    return None if bits == choice.base_bits else bits


def _reasons(problem: Problem, choice: BitChoice, policy: Policy) -> dict[str, str]:
    told = {name: _reason(problem, choice, name) for name in policy.layers if name in problem.graph.nodes}
    if INPUT_LAYER in policy.layers and INPUT_LAYER not in problem.graph.nodes:
        told[INPUT_LAYER] = "; ".join(_reason(problem, choice, name) for name in problem.graph.inputs)
    if policy.distill_config:
        told["distill_config"] = ", ".join(f"rank {problem.rows[name]['rank']}" for name in policy.distill_config)
    return told


def _reason(problem: Problem, choice: BitChoice, name: str) -> str:
    """Return why a layer has its bits.

    Rank, trace, predicted increase before and after, the strategy's word.
    """
    row, placement, predicted = problem.rows[name], problem.placement, problem.predicted
    base = predicted.at(choice.base_bits)
    before = after = 0.0
    if bits := _weight_bits(problem, choice, name):
        increases = predicted.weights[str(problem.graph[name].weight)]
        before, after = before + increases[base], after + increases[predicted.at(bits)]
    grid = placement.activations.get(name)
    if (bits := _activation_bits(problem, choice, name)) and grid is not None:
        increases = predicted.grids[grid]
        before, after = before + increases[base], after + increases[predicted.at(bits)]
    text = f"rank {row['rank']}/{len(problem.rows)}, trace {float(row['trace']):.1e}{_percent(row)}"
    shared = "".join(f", {one}" for one in _shared(problem, choice, name))
    why = choice.why.get(name) or _tied(problem, choice, name) or ("" if shared else choice.otherwise)
    return f"{text}, increase {before:.1e} → {after:.1e}{shared}" + f": {why}" * bool(why)


def _shared(problem: Problem, choice: BitChoice, name: str) -> Iterator[str]:
    """Yield with which layer one shares its weight or its grid.

    With one that has a reason, or with the first.
    """
    placement = problem.placement
    grid = placement.activations.get(name)
    for what, bits, layers in (
        ("weight", _weight_bits(problem, choice, name), placement.weights.get(problem.graph[name].weight or "", ())),
        ("grid", _activation_bits(problem, choice, name), () if grid is None else placement.members(grid)),
    ):
        told = layers if name in choice.why else [layer for layer in layers if layer in choice.why] or layers
        if bits and told[0] != name:
            yield f"one {what} with {told[0]}"


def _tied(problem: Problem, choice: BitChoice, name: str) -> str:
    """Return what ties a layer's grid to others; or "".

    On the way from the one that asked for the bits.
    """
    placement = problem.placement
    grid = placement.activations.get(name) if _activation_bits(problem, choice, name) else None
    group = next((group for group in placement.tied if grid in group), ())
    if grid is None or not group:
        return ""
    asked = [one for one in group if any(layer in choice.why for layer in placement.members(one))]
    first = asked[0] if asked else max(group, key=lambda one: float(problem.predicted.grids[one][0]))
    additions = [node for node in problem.graph.nodes.values() if is_addition(node)]
    reached = {first: ""}
    waiting = [first]
    for one in waiting:
        for node in additions:
            grids = [placement.grid_of[operand] for operand in node.inputs]
            for other in grids if one in grids else ():
                if other is not None and other not in reached:
                    reached[other] = f"same bits as {one}: they are added in {node.name}"
                    waiting.append(other)
    return reached.get(grid, "")


def _percent(row: Mapping[str, Any]) -> str:
    """Return the half width of the 95 % interval in percent of the trace."""
    low, high, trace = float(row["ci_low"]), float(row["ci_high"]), float(row["trace"])
    return f" ± {50 * (high - low) / abs(trace):.2g} %" if trace and high >= low else ""
