"""How exact, and how small, the exported ONNX files are: 4, 8 and 10 bits, checked with onnxruntime.

"Per layer" compares every quantizer and output given equal inputs, "end to end" the outputs, in quantization steps;
beside it torch with its other convolution kernels against itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from benchmarks.agreement import CHECKPOINT, example
from benchmarks.common import Row, parsed, parser, report
from benchmarks.networks import resnet18
from benchmarks.policies import uniform
from hessrank import export_onnx, prepare
from hessrank.quant.export.check.steps import Difference


def measure(name: str, model: nn.Module, inputs: Tensor, bits: int, folder: Path) -> Row:
    """Return a row of the table: a network exported with so many bits everywhere."""
    prepared = prepare(model, uniform(bits), inputs)
    told = export_onnx(prepared, folder / "model.onnx", inputs[:2])
    return {
        "network": name,
        "bits": bits,
        "layers checked": len(told.layers),
        "per layer": told.largest_difference,
        "end to end": _largest(told.outputs),
        "torch with other kernels": _largest(told.own),
        "file / float": told.ratio,
        "MiB": told.file_bytes / 2**20,
    }


def _largest(differences: Mapping[str, Difference]) -> float:
    return max(difference.largest for difference in differences.values())


def main() -> None:
    """Export, compare, print."""
    options = parsed(parser(__doc__))
    widths = (8,) if options.quick else (4, 8, 10)
    networks = {"low-light, shipped checkpoint": example(CHECKPOINT)}
    if options.quick:
        networks = {name: (model, inputs[:2, :, :32, :32]) for name, (model, inputs) in networks.items()}
    else:
        network, _ = resnet18(64)
        networks["ResNet-18 with batch norm"] = network, torch.rand(8, 3, 64, 64)
    with TemporaryDirectory() as folder:
        rows = [
            measure(name, model, inputs, bits, Path(folder))
            for name, (model, inputs) in networks.items()
            for bits in widths
        ]
    report("Exported to ONNX, in steps of the last bit", rows, options.out)


if __name__ == "__main__":
    main()
