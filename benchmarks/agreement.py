"""The increase of the loss that hessrank predicts for each layer, against the one that is measured.

Measured: one activation at a time is rounded to b bits for real, over the range surveyed on the data, the rest of
the network runs in float, and the `self` loss between the two outputs is averaged over the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks.common import Row, batch_of, parsed, parser, report
from benchmarks.networks import low_light
from hessrank import load_model, rank
from hessrank.analysis.calls import Call
from hessrank.analysis.damage import quantize
from hessrank.analysis.layers import Layer
from hessrank.analysis.losses import detached, make_loss
from hessrank.analysis.network import Network
from hessrank.analysis.survey import find_ranges, first_look
from hessrank.analysis.untouched import untouched

CHECKPOINT = Path("examples/lowlight/model.pth")


def measured_increases(model: nn.Module, inputs: Tensor, bits: Sequence[int]) -> pd.DataFrame:
    """Return the mean `self` loss of each layer (rows) at each bit-width (columns) if only it is rounded."""
    loss, batch = make_loss("self"), batch_of(inputs)
    with untouched(model):
        network = Network(model, batch_of(inputs[:1]))
        facts = first_look(network, batch_of(inputs[:1]))
        find_ranges(network, batch, facts)
        target = detached(network.run(batch, lambda *_: None).output)

        def increase(name: str, width: int) -> float:
            def tap(layer: Layer, call: Call, value: Tensor) -> Tensor | None:
                fact = facts[layer.name]
                return quantize(value, fact.low, fact.high, width) if layer.name == name else None

            return float(loss.per_sample(network.run(batch, tap).output, target).double().mean())

        names = [layer.name for layer in network.layers]
        return pd.DataFrame({b: [increase(name, b) for name in names] for b in bits}, index=names)


def summary(width: int, predicted: pd.Series[float], measured: pd.Series[float]) -> Row:
    """Return how well the prediction orders the layers, and how far off its size is."""
    ratio = predicted / measured.where(measured > 0)
    low, middle, high = np.nanquantile(ratio, [0.1, 0.5, 0.9])
    order = spearmanr(predicted, measured).statistic
    top = round(len(predicted) / 10)
    shared = set(predicted.nlargest(top).index) & set(measured.nlargest(top).index)
    return {
        "bits": width,
        "layers": len(predicted),
        "Spearman": round(float(order), 4),
        "predicted/measured, median": float(middle),
        "10 % below": float(low),
        "10 % above": float(high),
        "of the worst tenth, found": f"{len(shared)} of {top}",
    }


def worst(frame: pd.DataFrame, measured: pd.DataFrame, bits: Sequence[int], count: int = 4) -> list[Row]:
    """Return the layers whose places differ most, at each bit-width."""
    return [_pair(frame, measured, b, name) for b in bits for name in _apart(frame, measured, b).index[:count]]


def _apart(frame: pd.DataFrame, measured: pd.DataFrame, width: int) -> pd.Series[float]:
    """Return by how many places prediction and measurement differ, the most first."""
    places = frame[f"act_increase_b{width}"].rank() - measured[width].rank()
    return places.abs().sort_values(ascending=False)


def _pair(frame: pd.DataFrame, measured: pd.DataFrame, width: int, name: str) -> Row:
    predicted, found = frame[f"act_increase_b{width}"], measured[width]
    return {
        "bits": width,
        "layer": name,
        "kind": frame["kind"][name],
        "place predicted": int(predicted.rank(ascending=False)[name]),
        "place measured": int(found.rank(ascending=False)[name]),
        "predicted": float(predicted[name]),
        "measured": float(found[name]),
    }


def draw(frame: pd.DataFrame, measured: pd.DataFrame, path: Path) -> None:
    """Draw predicted against measured increases, a color for each bit-width, into a picture."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second to import

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for b in measured.columns:
        order = spearmanr(frame[f"act_increase_b{b}"], measured[b]).statistic
        label = f"{b} bits, Spearman {order:.3f}"
        axes.loglog(measured[b], frame[f"act_increase_b{b}"], ".", alpha=0.7, label=label)
    ends = [float(measured[measured > 0].min().min()), float(measured.max().max())]
    axes.plot(ends, ends, color="gray", linewidth=0.8)
    axes.set(xlabel="measured increase of the loss", ylabel="predicted increase", title="One activation quantized")
    axes.legend()
    figure.savefig(path, dpi=120)


def example(checkpoint: Path) -> tuple[nn.Module, Tensor]:
    """Return a checkpoint's network and its own inputs."""
    loaded = load_model(checkpoint)
    if loaded.inputs is None:
        raise SystemExit(f"{checkpoint}: no inputs in it")
    return loaded.model, loaded.inputs.float()


def main() -> None:
    """Predict, measure, compare."""
    made = parser(__doc__)
    made.add_argument(
        "--checkpoint", type=Path, default=CHECKPOINT, help=f"network and inputs (default {CHECKPOINT})"
    )
    made.add_argument("--increase-probes", type=int, default=96, help="draws of the rounding errors (default 96)")
    made.add_argument("--bits", type=int, nargs="+", default=[4, 6, 8], help="bit-widths (default 4 6 8)")
    made.add_argument("--plot", type=Path, help="write a scatter picture")
    options = parsed(made)
    torch.manual_seed(0)
    model, inputs = low_light(32, dbf_width=2, dble_width=16) if options.quick else example(options.checkpoint)
    ranking = rank(model, inputs, bits=options.bits, weights=False, increase_probes=options.increase_probes)
    frame = ranking.to_frame().set_index("layer")
    measured = measured_increases(model, inputs, options.bits).loc[frame.index]
    rows = [summary(b, frame[f"act_increase_b{b}"], measured[b]) for b in options.bits]
    report(f"Predicted against measured increase of the loss (samples: {len(inputs)})", rows, options.out)
    report("Where the places differ most", worst(frame, measured, options.bits))
    if options.plot:
        draw(frame, measured, options.plot)


if __name__ == "__main__":
    main()
