"""What a Gauss-Newton probe costs: time and memory against ordinary training steps of the same network.

A plain backward pass is ``loss.backward()`` with parameter gradients, as training does it (evaluation mode on
both sides). Times are of the backward passes alone; a probe's includes drawing it and all norms. Memory is the
growth of the resident set, at its peak, over what it was with network and data in place, each in a process
of its own, forward and backward together.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.common import Row, batch_of, interleaved, parsed, parser, report, seconds, work_for
from benchmarks.memory import peak, resident
from benchmarks.networks import EXAMPLES, QUICK, Example, chain, low_light
from hessrank.analysis.estimators import Estimates, GaussNewton
from hessrank.analysis.losses import make_loss
from hessrank.network.frozen_model import freeze
from hessrank.network.network import Network
from hessrank.network.outputs import output_tensors
from hessrank.network.weights import find_weights

MEMORY_EXAMPLES: dict[str, Callable[[], Example]] = {
    **EXAMPLES,
    "low-light, 1×1×512×512": lambda: low_light(512),
}


def plain_loss(model: nn.Module, x: Tensor) -> Tensor:
    """Run the network forward and compare with a target of ones, as a training step would (MSE, cross-entropy)."""
    outputs = output_tensors(model(x))
    target = torch.ones(len(x), dtype=torch.long) if outputs[0].ndim == 2 else [torch.ones_like(z) for z in outputs]
    name = "cross-entropy" if outputs[0].ndim == 2 else "mse"
    return make_loss(name).per_sample(outputs if name == "mse" else outputs[0], target).sum()


def probes(network: Network, x: Tensor, count: int, *, weights: bool) -> Iterator[Estimates]:
    """Return Gauss-Newton's probes one by one; the first runs the network forward."""
    held = find_weights(network, batch_of(x)) if weights else []
    return iter(GaussNewton()(work_for(network, batch_of(x), range(count), weights=held)))


def backward_times(name: str, example: Example, repeats: int) -> Row:
    """Time a probe, with and without weights, and a plain backward pass in turns."""
    model, x = example
    trained = copy.deepcopy(model)

    def plain() -> float:
        trained.zero_grad()
        loss = plain_loss(trained, x)
        return seconds(loss.backward)

    with ExitStack() as stack:
        stack.enter_context(freeze(model))
        network = Network(model, batch_of(x))
        # one probe more than turns, so that each that counts keeps the graph
        series = {which: probes(network, x, repeats + 3, weights=which == "weights too") for which in _PROBES}
        for one in series.values():
            next(one)
        tasks = {which: partial(_timed_next, one) for which, one in series.items()}
        taken = interleaved({**tasks, "plain": plain}, repeats)
    median = {which: statistics.median(times) for which, times in taken.items()}
    return {
        "network": name,
        "layers": len(network.layers),
        "plain backward s": median["plain"],
        "probe s": median["activations"],
        "probe with weights s": median["weights too"],
        "probe / plain": median["activations"] / median["plain"],
        "with weights / plain": median["weights too"] / median["plain"],
    }


def _timed_next(series: Iterator[Estimates]) -> float:
    return seconds(lambda: next(series))


_PROBES = ("activations", "weights too")


def peak_memory(name: str, which: str) -> float:
    """Measure in a process of its own; return the growth in MiB."""
    command = [sys.executable, "-m", "benchmarks.cost", "--child", name, which]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(result.stdout)


def _child(name: str, which: str) -> None:
    """Run one forward and backward pass and print by how many MiB memory grew at its peak."""
    torch.set_num_threads(1)
    model, x = MEMORY_EXAMPLES[name]()
    small = x[..., : max(32, x.shape[-2] // 8), : max(32, x.shape[-1] // 8)]
    with ExitStack() as stack:
        if which != "plain":
            stack.enter_context(freeze(model))
            network = Network(model, batch_of(small))
            list(probes(network, small, 1, weights=which == "weights too"))
        else:
            plain_loss(model, small).backward()  # type: ignore[no-untyped-call]
            model.zero_grad()
        before = resident()
        if which != "plain":
            list(probes(network, x, 1, weights=which == "weights too"))
        else:
            plain_loss(model, x).backward()  # type: ignore[no-untyped-call]
        print((peak() - before) / 2**20)


def memory(name: str, repeats: int) -> Row:
    """Compare the peak memory of a probe with that of a plain forward and backward pass."""
    found = {
        which: statistics.median(peak_memory(name, which) for _ in range(repeats)) for which in ("plain", *_PROBES)
    }
    return {
        "network": name,
        "plain MiB": found["plain"],
        "probe MiB": found["activations"],
        "probe with weights MiB": found["weights too"],
        "probe / plain": found["activations"] / found["plain"],
        "with weights / plain": found["weights too"] / found["plain"],
    }


def main() -> None:
    """Measure times, chains and memory and print three tables."""
    made = parser(__doc__)
    made.add_argument("--child", nargs=2, metavar=("NETWORK", "WHAT"), help=argparse.SUPPRESS)
    options = parsed(made)
    if options.child:
        _child(*options.child)
        return
    examples, repeats, lengths = (QUICK, 3, (5, 20)) if options.quick else (EXAMPLES, 11, (20, 200))
    rows = [backward_times(name, make(), repeats) for name, make in examples.items()]
    report("A Gauss-Newton probe of all layers against one plain backward pass", rows, options.out)
    chains = [backward_times(f"{n} × (conv 3×3 + LeakyReLU)", chain(n), repeats) for n in lengths]
    report("The same on chains of equal layers: does a layer cost more in a deeper network?", chains)
    names = list(MEMORY_EXAMPLES)[:1] if options.quick else list(MEMORY_EXAMPLES)
    report("Peak memory, forward and backward", [memory(name, 1 if options.quick else 3) for name in names])


if __name__ == "__main__":
    main()
