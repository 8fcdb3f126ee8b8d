"""`auto` with a task loss on curved networks, against the per-layer loop and against the exact traces.

GELU transformers of four and twelve blocks learn scikit-learn's digits; the loss is cross-entropy with their labels.
The loop is `hutchinson`, one probe and layer after the other, as it is published (HAWQ-V2) and as peers run it; the
same with eight probes side by side stands beside it. `auto` has its pilot, and then rounds of probes as a ranking
has them, until Hutchinson's part of the plan has had as many as the loop; other parts have as many as their spread
asks for. Exact traces are vᵀHv summed over all unit vectors, layer by layer. Layers that only move their input
(views, transpositions) have its trace, and are left out of all figures but the loop's time.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.common import Row, parsed, parser, report, seconds
from benchmarks.transformer import trained_transformer
from hessrank.analysis.estimators import ESTIMATORS, EstimatorChoice, Hutchinson, Work, choose_estimators
from hessrank.analysis.estimators.curvature_propagation.pilot import PROBES, run_pilot
from hessrank.analysis.estimators.probes import Rademacher, UnitVectors
from hessrank.analysis.losses import make_loss
from hessrank.analysis.options import Options
from hessrank.analysis.ranking_inputs import RankingInputs
from hessrank.analysis.sampling.probe_runner import ProbeRunner
from hessrank.analysis.sampling.resumable_pass import Journal
from hessrank.analysis.sampling.sampler import sample_traces
from hessrank.analysis.sampling.trace_samples import TraceSamples
from hessrank.analysis.statistics import Array
from hessrank.data.batch import Batch
from hessrank.network.frozen_model import freeze
from hessrank.network.layer_facts import SampleAxis
from hessrank.network.layer_sizes import measure_sizes
from hessrank.network.network import Network
from hessrank.network.sample_batches import SampleBatches, SampleContents

CHUNK = 16
COPIES = 8
AT_ONCE = 64  # unit vectors
MOVERS = ("view", "transpose", "reshape")


def compare(blocks: int, place: int, probes: int, steps: int, every: int) -> Row:
    """Measure one network on one digit.

    Args:
        blocks: of the transformer.
        place: of the digit among the unseen, the largest loss first.
        probes: of the loop, for each layer.
        steps: of training.
        every: the exact traces of every so many-th layer are computed.
    """
    model, x, labels = trained_transformer(blocks, steps)
    with torch.no_grad():
        logits = model(x)
    digit = int(F.cross_entropy(logits, labels, reduction="none").argsort(descending=True)[place])
    one = Batch((x[digit : digit + 1],), target=labels[digit : digit + 1])
    with freeze(model):
        network = Network(model, one)
        names = [layer.name for layer in network.layers]
        axes = dict.fromkeys(names, SampleAxis())
        loss = make_loss("cross-entropy")
        everything = Work(network, loss, one, Rademacher(0), range(probes), names, [], axes)
        found: list[EstimatorChoice] = []
        facts = measure_sizes(network, one)

        def pilot(layers: tuple[str, ...]) -> list[object]:
            work = dataclasses.replace(everything, layers=layers, indices=range(PROBES), copies=PROBES)
            return run_pilot(work, facts, logits.shape[1])

        planning = seconds(lambda: found.extend(choose_estimators("auto", network, loss, [], logits.shape[1], pilot)))  # type: ignore[arg-type]
        loop = dataclasses.replace(everything, layers=[n for n in names if n in network.curved])
        side_by_side = dataclasses.replace(loop, copies=COPIES)
        loop_time = seconds(lambda: _estimates(loop, "hutchinson", CHUNK)) / CHUNK
        fast_loop_time = seconds(lambda: _estimates(side_by_side, "hutchinson", CHUNK)) / CHUNK
        batches = SampleBatches([(x[digit], labels[digit])], model, 1, needs_target=True)
        inputs = RankingInputs(network, loss, batches, facts, [], logits.shape[1], SampleContents("", ()), one)
        choices = [found[0], *(c for c in found if c.estimator not in ("exact", "gauss-newton"))]
        options = Options("trace", 1, probes, 1e-12, 0, (4,), False, 0, "32")
        runner, journal, ones = ProbeRunner(inputs, 0, COPIES), Journal(lambda *_: None), np.ones((len(names), 1))
        sampled: list[TraceSamples] = []
        auto_time = (
            seconds(lambda: sampled.append(sample_traces(inputs, runner, journal, choices, ones, options)[0]))
            / probes
        )
        parts = sampled[0].parts[1:]
        spread = dict(
            zip(loop.layers, _estimates(side_by_side, "hutchinson", 8 * probes).var(0, ddof=1), strict=True)
        )
        kind = {layer.name: layer.kind for layer in network.layers}
        needed, distance = [], []
        for part in parts:
            layers, count = part.choice.layers, int(part.layers.num_probes[0])
            means, errors = part.layers.per_sample()[:, 0], np.sqrt(part.layers.variances(0) / count)
            kept = [i for i, name in enumerate(layers) if kind[name] not in MOVERS]
            if part.choice.estimator == "hutchinson":
                needed += [1.0] * len(kept)  # the loop itself
            else:
                piece = dataclasses.replace(side_by_side, layers=layers, indices=range(1000, 1000 + 8 * probes))
                values = np.stack(
                    [
                        one.layers[:, 0].numpy()
                        for one in ESTIMATORS.resolve(part.choice.estimator)(**part.choice.settings)(piece)
                    ]
                )
                needed += [values[:, i].var(ddof=1) / count * probes / spread[layers[i]] for i in kept]
            checked = kept[::every]
            for i, truth in zip(checked, exact_traces(loop, [layers[i] for i in checked]), strict=True):
                distance.append(abs(means[i] - truth) / errors[i])
    by_hutchinson = sum(len(p.choice.layers) for p in parts if p.choice.estimator == "hutchinson")
    return {
        "blocks": blocks,
        "accuracy": float((logits.argmax(1) == labels).float().mean()),
        "curved layers": len(loop.layers),
        "by hutchinson": by_hutchinson,
        "loop s a probe": loop_time,
        "auto s a probe": auto_time,
        "pilot s": planning,
        "loop / auto, median layer": loop_time / auto_time / float(np.median(needed)),
        "slowest layer": loop_time / auto_time / max(needed),
        f"all layers, {probes} probes, with pilot": loop_time
        * probes
        / (planning + auto_time * probes * max(1, *needed)),
        "without pilot": loop_time / auto_time / max(1, *needed),
        "against 8 side by side, median layer": fast_loop_time / auto_time / float(np.median(needed)),
        "farthest from exact, sem": max(distance),
        "exact traces": len(distance),
    }


def _estimates(work: Work, estimator: str, count: int) -> Array:
    found = ESTIMATORS.resolve(estimator)()(dataclasses.replace(work, indices=range(count)))
    return np.stack([one.layers[:, 0].numpy() for one in found])


def exact_traces(work: Work, layers: Sequence[str]) -> Array:
    """Return the exact trace of each layer: vᵀHv summed over all unit vectors."""
    sizes: dict[str, int] = {}
    work.network.run(work.batch, lambda layer, call, value: sizes.update({layer.name: value.numel()}))
    result = np.zeros(len(layers))
    for size in sorted(set(sizes.values())):
        group = [name for name in layers if sizes[name] == size]
        piece = dataclasses.replace(
            work, layers=group, indices=range(size), probes=UnitVectors(), copies=min(AT_ONCE, size)
        )
        if group:
            total = sum(one.layers[:, 0].numpy() for one in Hutchinson()(piece))
            result[[layers.index(name) for name in group]] = total
    return result


def main() -> None:
    """Print the table."""
    made = parser(__doc__)
    made.add_argument("--blocks", type=int, nargs="+", default=[4, 12])
    made.add_argument("--exact-every", type=int, default=1, help="compute every so many-th layer's exact trace only")
    options: argparse.Namespace = parsed(made)
    if options.quick:
        rows = [compare(2, 10, 16, steps=40, every=4)]
    else:
        rows = [compare(blocks, 10, 64, 600, options.exact_every) for blocks in options.blocks]
    report("auto on trained GELU transformers with cross-entropy, against the per-layer loop", rows, options.out)


if __name__ == "__main__":
    main()
