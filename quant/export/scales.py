"""Write every grid of a prepared model as JSON.

For a toolchain that takes scales beside a float model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hessrank.files.atomic_write import written_whole
from hessrank.quant.export.weight_grids import weight_grids
from hessrank.quant.prepare.model import Inserted, QuantizedModel
from hessrank.quant.quantizers import Grid, Quantizer

SCHEMA_VERSION = 1


def write_scales(prepared: QuantizedModel, path: str | Path) -> None:
    """Write the grid of every quantized tensor, in the order of execution.

    They are those of the ONNX file. An integer ``q`` stands for ``(q - zero_point) * scale``. Tensors that share a
    grid name the same ``quantizer``. ``scale`` and ``zero_point`` are numbers, or lists along dimension ``axis`` of
    the tensor.

    Args:
        prepared: the calibrated model.
        path: the file; replaced whole.

    Raises:
        OutputError: the file cannot be written.
        ExportError: a bias fits no int32; the message names layer and channel.
    """
    quantizers = dict(prepared.quantizers_by_path())
    stored, _ = weight_grids(prepared)
    tensors = [_entry(one, quantizers[one.quantizer], stored) for one in prepared.inserted]
    with written_whole(path) as beside:
        text = json.dumps({"schema": SCHEMA_VERSION, "tensors": tensors}, indent=2, ensure_ascii=False)
        beside.write_text(text + "\n", encoding="utf-8")


def _entry(one: Inserted, quantizer: Quantizer, stored: Mapping[Quantizer, Grid]) -> dict[str, Any]:
    grid = stored.get(quantizer) or quantizer.grid()
    return {
        "layer": one.layer,
        "tensor": one.tensor,
        "quantizer": one.quantizer,
        "bits": quantizer.scheme.bits,
        "scheme": quantizer.scheme.word,
        "method": quantizer.method,
        "enabled": quantizer.enabled,
        "axis": grid.axis,
        "scale": _plain(grid.scale, grid.axis),
        "zero_point": _plain(grid.zero_point, grid.axis),
        "quant_min": grid.quant_min,
        "quant_max": grid.quant_max,
    }


def _plain(tensor: Tensor, axis: int | None) -> float | int | list[float] | list[int]:
    plain: float | int | list[float] | list[int] = tensor.item() if axis is None else tensor.tolist()
    return plain
