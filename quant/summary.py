"""What a policy costs and what it is predicted to do, in a few lines."""

from __future__ import annotations

from dataclasses import dataclass

from hessrank.analysis.ranking import Ranking
from hessrank.quant.allocation.costs import FLOAT_BITS, Bits, Costs, costs
from hessrank.quant.policy import Policy, policy_points, require, resolve
from hessrank.quant.predicted import predict
from hessrank.quant.strategies import Problem
from hessrank.sizes import size_text


@dataclass(frozen=True)
class Summary:
    """A policy in numbers.

    Attributes:
        costs: size, BOPs, mean bits.
        in_float: the same of the network as it is.
        increase: predicted increase of the loss, all tensors together.
        loss: what the increase is an increase of.
        warnings: entries that do nothing.
    """

    costs: Costs
    in_float: Costs
    increase: float
    loss: str
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        size, bops = self.costs.size_mib / self.in_float.size_mib, self.costs.bops / self.in_float.bops
        own, of_float = (size_text(found.size_mib * 2**20) for found in (self.costs, self.in_float))
        return "\n".join(
            [
                f"size       {own}, {size:.3g} of float ({of_float})",
                f"BOPs       {self.costs.bops:.4g} for one sample, {bops:.3g} of float (32 × 32 bits)",
                f"mean bits  weights {self.costs.mean_weight_bits:.3g}, activations {self.costs.mean_act_bits:.3g}",
                f"increase   {self.increase:.3g} of the loss {self.loss!r}, predicted",
            ]
        )


def summarize(policy: Policy, ranking: Ranking) -> Summary:
    """Return what any policy, made or written by hand, costs and is predicted to do to a ranked network.

    Args:
        policy: the policy.
        ranking: of the same network.

    Raises:
        PolicyError: the policy is for another network.
        OptionError: it has bits that the ranking does not predict.
    """
    problem = Problem.of(ranking)
    idle = require(policy, problem.graph)
    points = policy_points(policy, problem.graph)
    settings = resolve(policy, problem.graph, points)
    weights = {name: setting.scheme.bits for name, setting in settings.weights.items()}
    grids = {name: setting.scheme.bits for name, setting in settings.activations.items()}

    def cost(bits: Bits) -> Costs:
        return costs(problem.graph, points, bits, other_parameters=problem.other_parameters)

    return Summary(
        cost(Bits(weights, grids)),
        cost(Bits(dict.fromkeys(weights, FLOAT_BITS), dict.fromkeys(grids, FLOAT_BITS))),
        predict(ranking, problem.graph, points).total(weights, grids),
        str(ranking.info.get("loss", "?")),
        tuple(map(str, idle)),
    )
