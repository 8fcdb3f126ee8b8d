"""What a large ranking costs: two processes against one, and the cost model of docs/scale.md against the clock.

Two processes: seconds on the clock of the whole command on the shipped network, start included, in turns.
The cost model: CPU seconds of each stage of a ranking (two samples, `self` loss, weights, default bits) against what
a plain forward pass, a plain backward pass with all parameter gradients, and rounding an element predict.
"""

from __future__ import annotations

import copy
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.common import Row, interleaved, parsed, parser, report, seconds
from benchmarks.networks import Example
from benchmarks.transformer import Block
from hessrank.analysis.options import DEFAULT_BITS
from hessrank.analysis.rank import rank
from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.rounding.quantize import quantize_weight_widths, rounding_error
from hessrank.analysis.sampling.probe_runner import PROBES_A_FORWARD

SHIPPED = Path("examples/lowlight/model.pth")
SAMPLES, PROBES = 2, 16


def blocks(count: int, width: int, length: int) -> Example:
    """Return transformer blocks with random weights, and one sequence of that length."""
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(width, width // 64) for _ in range(count)))
    return model.eval(), torch.randn(1, length, width)


EXAMPLES: dict[str, Callable[[], Example]] = {
    "8 blocks of width 256, 64 tokens": lambda: blocks(8, 256, 64),
    "12 blocks of width 512, 128 tokens": lambda: blocks(12, 512, 128),
}
QUICK: dict[str, Callable[[], Example]] = {"2 blocks of width 64, 16 tokens": lambda: blocks(2, 64, 16)}


def plain_passes(model: nn.Module, x: Tensor) -> tuple[float, float]:
    """Return the seconds of a forward and of a backward pass, as training does them."""
    trained = copy.deepcopy(model)

    def forward() -> float:
        return seconds(lambda: trained(x))

    def backward() -> float:
        trained.zero_grad()
        loss = trained(x).square().mean()
        return seconds(loss.backward)

    taken = interleaved({"forward": forward, "backward": backward}, 5)
    return statistics.median(taken["forward"]), statistics.median(taken["backward"])


def rounding_an_element(activation: int, weight: int) -> tuple[float, float]:
    """Return the seconds that an element takes to be rounded and multiplied: of an activation, and of a weight.

    Args:
        activation: number of elements of an activation of the network's size: caches matter.
        weight: and of a weight.
    """
    values, slopes = torch.randn(1, activation), torch.randn(1, activation)
    matrix, gradient = torch.randn(64, weight // 64), torch.randn(weight // 64 * 64)

    def of_activation() -> float:
        return seconds(lambda: [rounding_error(values, -4.0, 4.0, 8).mul_(slopes).sum(1) for _ in range(20)])

    def of_weight() -> float:
        return seconds(
            lambda: [
                quantize_weight_widths(matrix, 0, DEFAULT_BITS).sub_(matrix).flatten(1) @ gradient for _ in range(20)
            ]
        )

    taken = interleaved({"activation": of_activation, "weight": of_weight}, 5)
    whole = {name: statistics.median(some) / 20 for name, some in taken.items()}
    return whole["activation"] / activation, whole["weight"] / len(DEFAULT_BITS) / matrix.numel()


def stages(model: nn.Module, x: Tensor) -> tuple[Ranking, dict[str, float]]:
    """Rank, and return the CPU seconds of each stage since the first batch."""
    taken: dict[str, float] = {}
    since: float | None = None

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal since
        now = time.process_time()
        taken[stage] = taken.get(stage, 0.0) + now - (now if since is None else since)
        since = now

    data = torch.cat([x, x.flip(1)])
    found = rank(model, data, max_probes=PROBES, tolerance=1e-9, increase_probes=SAMPLES * PROBES, progress=tell)
    return found, taken


def cost_row(name: str, example: Example) -> Row:
    """Predict a ranking's stages and time them."""
    model, x = example
    forward, backward = plain_passes(model, x)
    ranking, taken = stages(model, x)
    frame, matrices = ranking.to_frame(), [p.numel() for p in model.parameters() if p.ndim > 1]
    activations, weights = int(frame["numel"].sum()), sum(matrices)
    element, weight_element = rounding_an_element(activations // len(frame), weights // len(matrices))
    probes = int(frame["num_probes"].max())
    runs, widths = PROBES / PROBES_A_FORWARD * forward, len(DEFAULT_BITS)
    predicted = {
        "ranges": 2 * forward + widths * activations * element,
        "probes": probes / PROBES_A_FORWARD * forward + probes * backward,
        "increases": runs + PROBES * backward + widths * (activations * element + PROBES * weights * weight_element),
    }
    measured = {stage: taken[stage] / SAMPLES for stage in predicted}
    measured["ranges"] += forward / SAMPLES  # the first look, before which nothing is told
    row: dict[str, object] = {"network": name, "parameters": f"{weights / 1e6:.3g} M", "layers": len(frame)}
    row |= {"forward s": forward, "backward s": backward}
    row |= {"ns an element": element * 1e9, "ns a weight": weight_element * 1e9}
    for stage, wanted in predicted.items():
        row |= {f"{stage}: predicted s": wanted, f"{stage}: measured s": measured[stage]}
    return row | {"measured / predicted, all": sum(measured.values()) / sum(predicted.values())}


def two_processes(samples: int, draws: int, repeats: int, data: Sequence[str] = ()) -> Row:
    """Time the command with one process and with two, in turns; ``data`` are options for other samples."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    with tempfile.TemporaryDirectory() as folder:

        def run(start: list[str], name: str) -> float:
            out = Path(folder) / name
            asked = ["--num-samples", str(samples), "--increase-probes", str(draws), "--tolerance", "1e-6"]
            command = [sys.executable, *start, "-m", "hessrank", str(SHIPPED), *data, *asked]
            began = time.monotonic()
            command += ["--out", str(out)]
            done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
            return time.monotonic() - began

        turns = {"one": lambda: run([], "one.csv"), "two": lambda: run(launch, "two.csv")}
        taken = interleaved(turns, repeats)
        same = (Path(folder) / "one.csv").read_bytes() == (Path(folder) / "two.csv").read_bytes()
    one, two = (statistics.median(taken[name]) for name in ("one", "two"))
    return {
        "samples": samples,
        "draws": draws,
        "one process s": one,
        "two processes s": two,
        "times faster": one / two,
        "same bytes": "yes" if same else "no",
    }


def main() -> None:
    """Time both and print the tables."""
    options = parsed(parser(__doc__))
    examples = QUICK if options.quick else EXAMPLES
    rows = [cost_row(name, make()) for name, make in examples.items()]
    report("The cost model against the clock, CPU seconds a sample", rows, options.out)
    small = ("--data", "random", "--input-shape", "1,32,32") if options.quick else ()
    asked = [(2, 8)] if options.quick else [(16, 96), (24, 1536)]
    two = [two_processes(samples, draws, 1, small) for samples, draws in asked]
    report("One process and two, seconds on the clock", two)


if __name__ == "__main__":
    main()
