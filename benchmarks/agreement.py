"""The increase of the loss that hessrank predicts for each layer, against the one that ``hessrank verify`` measures.

One activation at a time is rounded to b bits for real, over the range surveyed on the data, the rest of the network
runs in float, and the `self` loss between the two outputs is averaged over the samples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import Row, parsed, parser, report
from benchmarks.networks import low_light
from hessrank import Verification, load_model, rank, verify

CHECKPOINT = Path("examples/lowlight/model.pth")


def summary(found: Verification) -> list[Row]:
    """Return how well the prediction orders the layers at each bit-width, and how far off its size is."""
    frame, rows = found.to_frame(), []
    for one in found.agreement:
        part = frame[frame["bits"] == one.bits].set_index("layer")
        low, high = np.nanquantile(part["ratio"][part["ratio"] > 0], [0.1, 0.9])
        top = round(len(part) / 10)
        shared = set(part["predicted"].nlargest(top).index) & set(part["measured"].nlargest(top).index)
        rows.append(
            {
                "bits": one.bits,
                "layers": one.count,
                "Spearman": round(one.spearman, 4),
                "95 % interval": f"{one.low:.4f}–{one.high:.4f}",
                "predicted/measured, median": one.ratio,
                "10 % below": float(low),
                "10 % above": float(high),
                "of the worst tenth, found": f"{len(shared)} of {top}",
                "off by 1.5 or more": one.off,
            }
        )
    return rows


def reasons(found: Verification) -> list[Row]:
    """Return how often each reason was found for a prediction that is off."""
    counts = found.disagreeing()["reason"].value_counts()
    return [{"because": str(reason), "tensors": int(count)} for reason, count in counts.items()]


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
    model, inputs = low_light(32, dbf_width=2, dble_width=4) if options.quick else example(options.checkpoint)
    ranking = rank(model, inputs, bits=options.bits, weights=False, increase_probes=options.increase_probes)
    found = verify(model, inputs, ranking, bits=options.bits, weights=False)
    report(f"Predicted against measured increase of the loss (samples: {len(inputs)})", summary(found), options.out)
    if rows := reasons(found):
        report("Why predictions are off by a factor of 1.5 or more", rows)
    if options.plot:
        found.plot().get_figure(root=True).savefig(options.plot)  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
