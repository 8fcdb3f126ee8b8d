"""What policies are worth on the shipped checkpoint, without training: predicted, measured, and in dB.

First the strategies beside a hand-written policy and beside ten bits in the middle of the network, at their
BOPs, on the two held-out photographs. Then random policies: does the predicted total order them as the
measured increase of the loss does? Each draws its own shares of the widths, then a width for every weight and grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks.agreement import CHECKPOINT, example
from benchmarks.common import Row, parsed, parser, report
from hessrank import Policy, Ranking, make_policy, prepare, rank, summarize
from hessrank.analysis.losses import make_loss
from hessrank.distill.tasks.lowlight import Night, held_out, psnr_8bit
from hessrank.quant.bit_choice.make_policy import policy_of
from hessrank.quant.bit_choice.strategies import BitChoice, Problem

BY_HAND = Path("tests/quant/policy/first_user_run.yaml")
WIDTHS = (4, 6, 8, 10)


def uniform(bits: int) -> Policy:
    """Return the policy with as many bits everywhere."""
    return Policy.of({"extra_qconfig_dict": {"w_qscheme": {"bit": bits}, "a_qscheme": {"bit": bits}}})


def by_hand(base_bits: int) -> Policy:
    """Return the first user's ends at ten bits, over another base."""
    written = Policy.read(BY_HAND).model_dump()
    return Policy.of(written | {"extra_qconfig_dict": uniform(base_bits).model_dump()["extra_qconfig_dict"]})


def random_policies(problem: Problem, count: int, seed: int) -> Iterator[Policy]:
    """Yield policies whose shares of the widths are drawn from a flat Dirichlet distribution, each its own."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        shares = rng.dirichlet(np.ones(len(WIDTHS)))

        def draw(names: Sequence[str], shares: np.ndarray = shares) -> dict[str, int]:
            return dict(zip(names, rng.choice(WIDTHS, len(names), p=shares).tolist(), strict=True))

        placement = problem.placement
        yield policy_of(problem, BitChoice(8, draw(list(placement.weights)), draw(placement.grids)))


@torch.no_grad()
def increase(model: nn.Module, inputs: Tensor, target: object) -> float:
    """Return the mean `self` loss of a prepared model."""
    return float(make_loss("self").per_sample(model.eval()(inputs), target).double().mean())


@torch.no_grad()
def decibels(model: nn.Module, nights: Sequence[Night]) -> dict[str, float]:
    """Return the PSNR of every picture of the held-out photographs."""
    found = {}
    for night in nights:
        mono, rgb = model.eval()(night.raw[None])
        found[f"{night.name} mono"] = float(psnr_8bit(mono[0], night.mono))
        found[f"{night.name} rgb"] = float(psnr_8bit(rgb[0], night.rgb))
    return {**found, "mean dB": sum(found.values()) / len(found)}


def strategies(ranking: Ranking) -> Mapping[str, Policy]:
    """Return the policies of the first table, each at the BOPs of the one it stands beside."""
    ends, hand = make_policy(ranking, base_bits=4), by_hand(4)
    bops, bops_by_hand = (summarize(policy, ranking).costs.bops for policy in (ends, hand))
    return {
        "uniform 4 bits": uniform(4),
        "uniform 8 bits": uniform(8),
        "sensitive-ends, 10 over 4": ends,
        "budget, same BOPs, 4 or 10": make_policy(ranking, "budget", bits=(4, 10), budget_bops=bops),
        "budget, same BOPs, 4 to 10": make_policy(ranking, "budget", bits=WIDTHS, budget_bops=bops),
        "10 bits in the middle, same BOPs": make_policy(ranking, "middle", base_bits=4, budget_bops=bops),
        "ends by hand, 10 over 4": hand,
        "budget at their BOPs, 4 to 10": make_policy(ranking, "budget", bits=WIDTHS, budget_bops=bops_by_hand),
        "10 bits in the middle at their BOPs": make_policy(ranking, "middle", base_bits=4, budget_bops=bops_by_hand),
    }


def main() -> None:
    """Rank, make policies, quantize, measure."""
    made = parser(__doc__)
    made.add_argument("--policies", type=int, default=120, help="random policies (default 120)")
    made.add_argument("--seed", type=int, default=0, help="of the random policies (default 0)")
    options = parsed(made)
    torch.manual_seed(0)
    model, inputs = example(CHECKPOINT)
    inputs = inputs[:2, :, :32, :32] if options.quick else inputs
    ranking = rank(model, inputs, bits=WIDTHS)
    with torch.no_grad():
        target = model.eval()(inputs)
    nights = [] if options.quick else held_out()
    rows: list[Row] = [{"policy": "float", "GBOPs": 0.0, "MiB": 0.0, "predicted": 0.0, "measured": 0.0}]
    rows[0] = {**rows[0], **(decibels(model, nights) if nights else {})}
    for name, policy in strategies(ranking).items():
        told = summarize(policy, ranking)
        prepared = prepare(model, policy, inputs)
        row = {"policy": name, "GBOPs": told.costs.bops / 1e9, "MiB": told.costs.size_mib, "predicted": told.increase}
        row["measured"] = increase(prepared, inputs, target)
        rows.append({**row, **(decibels(prepared, nights) if nights else {})})
    report("Policies on the shipped checkpoint, without training", rows, options.out)
    pairs = [
        (summarize(policy, ranking).increase, increase(prepare(model, policy, inputs), inputs, target))
        for policy in random_policies(Problem.of(ranking), 4 if options.quick else options.policies, options.seed)
    ]
    predicted, measured = np.array(pairs).T
    low, middle, high = np.quantile(predicted / measured, [0, 0.5, 1])
    row = {"policies": len(pairs), "Spearman": float(spearmanr(predicted, measured).statistic)}
    row |= {"predicted/measured, least": low, "median": middle, "most": high}
    report("Random policies: predicted total increase against measured", [row])


if __name__ == "__main__":
    main()
