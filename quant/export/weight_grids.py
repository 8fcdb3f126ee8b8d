"""Find the grids that weights are stored on.

Their quantizers' own, coarser where a bias would not fit int32.
"""

from __future__ import annotations

from dataclasses import replace

from hessrank.errors import HessrankError
from hessrank.quant.export.errors import ExportError
from hessrank.quant.prepare.bias_steps import least_weight_steps
from hessrank.quant.prepare.model import QuantizedModel
from hessrank.quant.quantizers import Grid, Quantizer
from hessrank.text import listed


def weight_grids(model: QuantizedModel) -> tuple[dict[Quantizer, Grid], list[str]]:
    """Return the grid that each weight is stored on, and notes.

    A note on each grid that is not its quantizer's own.

    Calibration raises steps that are too fine for the biases; in training a step may shrink again, or a bias grow.

    Args:
        model: the calibrated model.

    Raises:
        ExportError: a bias fits no int32 whatever the step; the message names layer and channel.
    """
    try:
        least = least_weight_steps(model)
    except HessrankError as error:
        raise ExportError(str(error)) from error
    enabled = [module.weight_quantizer for _, module in model.quantized_weights() if module.weight_quantizer.enabled]
    grids = {quantizer: quantizer.grid() for quantizer in enabled}
    notes = []
    for quantizer, grid in grids.items():
        if quantizer not in least:
            continue
        scale = least[quantizer].raised(grid.scale, powers_of_two=quantizer.scheme.pot_scale)
        if channels := (scale != grid.scale).nonzero().flatten().tolist():
            where = "" if grid.axis is None else f", channels {listed(map(str, channels))}"
            notes.append(
                f"weight of {least[quantizer].layer!r}{where}: stored with a coarser step than it was trained with, "
                "since the bias beside it would not fit into 32 bits"
            )
            grids[quantizer] = replace(grid, scale=scale)
    return grids, notes
