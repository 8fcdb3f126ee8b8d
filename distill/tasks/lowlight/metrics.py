"""Means over pictures, for training and validation: PSNR and SSIM of the monochrome and the color picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from hessrank.distill.tasks.lowlight.quality import psnr_8bit, ssim_8bit

MonoAndColor = tuple[Tensor, Tensor]
"""``(mono, rgb)``: B×1×H×W and B×3×H×W."""


class PictureMean(Metric):
    """The mean over pictures of a figure, of one of the network's two outputs.

    The published code's means are the same but for the 8-bit values, which it cuts and this rounds.

    Attributes:
        total: sum over the pictures so far, a float64.
        count: their number.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, figure: Callable[[Tensor, Tensor], float], field: int, **options: Any) -> None:
        """Start with no picture.

        Args:
            figure: what to tell of a picture C×H×W and its target.
            field: 0 for the monochrome picture, 1 for the color one.
            options: those of every ``torchmetrics.Metric``.
        """
        super().__init__(**options)
        self._figure, self._field = figure, field
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, output: MonoAndColor, target: MonoAndColor) -> None:
        """Take a batch of outputs and targets.

        Raises:
            DataError: they differ in shape, or are too small for the figure.
        """
        for picture, truth in zip(output[self._field], target[self._field], strict=True):
            self.total += self._figure(picture, truth)
            self.count += 1

    def compute(self) -> Tensor:
        """Return the mean: NaN before the first picture, infinite where the figure of one was."""
        return self.total / self.count


def picture_metrics() -> dict[str, Metric]:
    """Return new ``psnr_mono``, ``psnr_rgb`` (dB), ``ssim_mono`` and ``ssim_rgb``."""
    figures = {"psnr": psnr_8bit, "ssim": ssim_8bit}
    fields = {"mono": 0, "rgb": 1}
    return {f"{name}_{what}": PictureMean(figures[name], fields[what]) for name in figures for what in fields}
