"""What a step of quantization-aware training costs: hessrank, torchao and MQBench against the float network.

A step is forward, loss and backward in training mode, without the optimizer's part. "Kept" is what autograd keeps
from forward to backward, parameters and buffers apart. Packages that are not installed are left out.
"""

from __future__ import annotations

import copy
import logging
import statistics
import warnings
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.common import Row, interleaved, parsed, parser, report, seconds
from benchmarks.cost import plain_loss
from benchmarks.networks import Example, low_light, resnet18
from benchmarks.qat_peers import Maker, installed, quantized_tensors

NOTE = """
activations, weights: tensors that are fake-quantized in one forward pass. torchao's quantizer for x86 leaves
transposed convolutions, products, gates, outputs and one side of additions in float; "hessrank's places" is torchao
with its own fake-quantizers where hessrank has them. "observing" is torchao's default in training; without it the
observers are switched off after calibration. Batch norms learn in all of them."""


def for_training(example: Example, batch: int) -> Example:
    """Return the network in training mode with as many random inputs; batch norms average as usual."""
    model, x = example
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return model.train(), torch.rand(batch, *x.shape[1:], generator=torch.Generator().manual_seed(1))


EXAMPLES: dict[str, Callable[[], Example]] = {
    "low-light, 1×1×128×128": lambda: for_training(low_light(), 1),
    "ResNet-18, 4×3×64×64": lambda: for_training(resnet18(64), 4),
}
QUICK: dict[str, Callable[[], Example]] = {
    "low-light, widths 2 and 16, 1×1×32×32": lambda: for_training(low_light(32, dbf_width=2, dble_width=16), 1),
    "ResNet-18, 2×3×32×32": lambda: for_training(resnet18(32), 2),
}


def step_seconds(model: nn.Module, x: Tensor) -> float:
    """Return the seconds of one forward and backward pass."""
    model.zero_grad()
    return seconds(lambda: plain_loss(model, x).backward())  # type: ignore[no-untyped-call]


def forward_seconds(model: nn.Module, x: Tensor) -> float:
    """Return the seconds of one forward pass without gradients."""
    with torch.no_grad():
        return seconds(lambda: model(x))


def kept_bytes(model: nn.Module, x: Tensor) -> int:
    """Return the bytes of all storages that autograd keeps for the backward pass, except parameters and buffers."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        plain_loss(model, x).backward()  # type: ignore[no-untyped-call]
    return sum(kept.values())


def measure(name: str, example: Example, makers: Mapping[str, Maker], repeats: int) -> list[Row]:
    """Prepare one network in every way, and let them take turns at a step, then at a forward pass."""
    model, x = example
    models = {"float": copy.deepcopy(model)}
    models |= {what: make(copy.deepcopy(model), x) for what, make in makers.items()}
    counts = {what: quantized_tensors(one, x) for what, one in models.items()}
    kept = {what: kept_bytes(one, x) for what, one in models.items()}
    step = _medians(step_seconds, models, x, repeats)
    for one in models.values():
        one.eval()
    forward = _medians(forward_seconds, models, x, repeats)
    return [
        {
            "network": name,
            "what": what,
            "activations": counts[what][0],
            "weights": counts[what][1],
            "step ms": 1e3 * step[what],
            "/ float": step[what] / step["float"],
            "/ hessrank fixed": step[what] / step["hessrank fixed"],
            "evaluation ms": 1e3 * forward[what],
            "kept MiB": kept[what] / 2**20,
        }
        for what in models
    ]


def _medians(
    timed: Callable[[nn.Module, Tensor], float], models: Mapping[str, nn.Module], x: Tensor, repeats: int
) -> dict[str, float]:
    taken = interleaved({what: partial(timed, one, x) for what, one in models.items()}, repeats)
    return {what: statistics.median(times) for what, times in taken.items()}


def main() -> None:
    """Measure both networks and print one table."""
    options = parsed(parser(__doc__))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    makers = installed()
    examples, repeats = (QUICK, 3) if options.quick else (EXAMPLES, 21)
    rows = [row for name, make in examples.items() for row in measure(name, make(), makers, repeats)]
    report("A step of quantization-aware training with 8 bits, and what autograd keeps", rows, options.out)
    print(NOTE)


if __name__ == "__main__":
    main()
