"""Sum up a policy in a few lines.

What it costs, what it is predicted to do, what it leaves in float.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hessrank.analysis.result.ranking import Ranking
from hessrank.quant.bit_choice.allocation.policy_cost import Bits, PolicyCost, count_costs
from hessrank.quant.bit_choice.strategies import Problem
from hessrank.quant.policy import Policy, place_policy_quantizers, require, resolve
from hessrank.quant.scheme import FLOAT_BITS
from hessrank.renamed import renamed_names
from hessrank.text import listed, size_text

_KINDS = ("weight", "input", "activation")  # how what stays in float begins, in the order in which it is listed


@dataclass(frozen=True)
class PolicySummary:
    """A policy in numbers.

    Attributes:
        costs: size, BOPs, mean bits.
        in_float: the same of the network as it is.
        increase: predicted increase of the loss, all tensors together.
        loss: what the increase is an increase of.
        warnings: entries that do nothing.
        unquantized: what stays in float where an integer kernel would want integers, and why.
    """

    costs: PolicyCost
    in_float: PolicyCost
    increase: float
    loss: str
    warnings: tuple[str, ...]
    unquantized: Mapping[str, str]

    def __str__(self) -> str:
        found = self.costs
        size, bops = found.size_mib / self.in_float.size_mib, found.bops / self.in_float.bops
        own, of_float = (size_text(one.size_mib * 2**20) for one in (found, self.in_float))
        weights = f"weights {found.mean_weight_bits:.3g}"
        if found.quantized_weights < 1:
            share = f"{100 * found.quantized_weights:.3g} % that are quantized"
            weights += f" ({found.mean_quantized_weight_bits:.3g} for the {share})"
        return "\n".join(
            [
                f"size       {own} in the ONNX file, {size:.3g} of float ({of_float})",
                f"BOPs       {found.bops:.4g} for one sample, {bops:.3g} of float (32 × 32 bits)",
                f"mean bits  {weights}, activations {found.mean_act_bits:.3g}",
                *self._floating(),
                f"increase   {self.increase:.3g} of the loss {self.loss!r}, predicted",
            ]
        )

    def _floating(self) -> Iterator[str]:
        """Yield what stays in float.

        How much of the policy's size and BOPs, then every tensor with its reason.
        """
        count = len(self.unquantized)
        shares = f"{100 * self.costs.float_size:.2g} % of the size, {100 * self.costs.float_bops:.2g} % of the BOPs"
        yield f"in float   {count} tensor{'s' * (count != 1)}" + f": {shares}" * bool(count)
        grouped: dict[tuple[str, str], list[str]] = {}
        for name, why in sorted(self.unquantized.items(), key=lambda one: _KINDS.index(one[0].split()[0])):
            what, _, layer = name.rpartition(" of ")
            grouped.setdefault((what, why), []).append(layer)
        for (what, why), layers in grouped.items():
            yield f"           {what} of {listed(layers)}: {why}"


def summarize(policy: Policy, ranking: Ranking) -> PolicySummary:
    """Sum up what a policy costs and is predicted to do to a ranked network.

    Any policy, made or written by hand.

    Args:
        policy: the policy.
        ranking: of the same network.

    Raises:
        PolicyError: the policy is for another network.
        OptionError: it has bits that the ranking does not predict.
    """
    problem, bits = settle_bits(policy, ranking)
    floating = Bits(dict.fromkeys(bits.weights, FLOAT_BITS), dict.fromkeys(bits.grids, FLOAT_BITS))
    return PolicySummary(
        cost_of(problem, bits),
        cost_of(problem, floating),
        problem.predicted.total(bits.weights, bits.grids),
        str(ranking.info.get("loss", "?")),
        tuple(map(str, require(policy, problem.graph))),
        problem.placement.in_float,
    )


def settle_bits(policy: Policy, ranking: Ranking) -> tuple[Problem, Bits]:
    """Return a ranked network as a policy quantizes it, and the policy's bits.

    Raises:
        PolicyError: the policy is for another network.
    """
    problem = Problem.of(ranking)
    require(policy, problem.graph)
    placement = place_policy_quantizers(policy, problem.graph)
    settings = resolve(policy, problem.graph, placement)
    bits = Bits(
        {name: setting.scheme.bits for name, setting in settings.weights.items()},
        {name: setting.scheme.bits for name, setting in settings.activations.items()},
        tuple(name for name, setting in settings.weights.items() if not setting.scheme.per_channel),
    )
    return replace(problem, placement=placement), bits


def cost_of(problem: Problem, bits: Bits) -> PolicyCost:
    """Return what bits cost a ranked network."""
    return count_costs(problem.graph, problem.placement, bits, other_parameters=problem.other_parameters)


if not TYPE_CHECKING:  # to which every name would then be known
    __getattr__ = renamed_names(__name__, globals(), Summary="PolicySummary")
