"""The low-light task: a RAW of the night in, a monochrome and a color picture out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric

from hessrank.distill.tasks.base import TASKS, Picture, Task
from hessrank.distill.tasks.lowlight.data.options import LowLightOptions
from hessrank.distill.tasks.lowlight.data.sources import find_data
from hessrank.distill.tasks.lowlight.metrics import MonoAndColor, picture_metrics
from hessrank.distill.tasks.lowlight.network import LowLight, initialize
from hessrank.distill.tasks.lowlight.quality import psnr_8bit


@TASKS.register("lowlight")
class LowLightTask(Task):
    """Train :class:`LowLight` on photographs in a simulated night, on SID or on MCR.

    Samples are ``(raw, (mono, rgb))``, float32 in [0, 1]: 1×H×W, 1×H×W, 3×H×W. What they are and what was
    decided about them is said where it is done: :mod:`~hessrank.distill.tasks.lowlight.data.sid` and ``pairs``
    (SID: levels, amplification, monochrome target, misaligned scenes), ``mcr_pairs`` and ``mcr_folders`` (MCR:
    layouts, development of ``.raw`` files, validation), ``photographs`` and ``camera`` (the built-in data),
    ``squares`` (flips that keep the mosaic's phase), ``quality`` (PSNR and SSIM), ``network``.

    Attributes:
        notes: what was done with the data, a sentence each.
    """

    monitor = "psnr_rgb"
    model = LowLight  # type: ignore[assignment]  # a class where the base has a method

    def __init__(
        self,
        data: str | None = None,
        *,
        folder: Path,
        seed: int,
        patch: int | None = None,
        samples: int | None = None,
        ratio: float = 300.0,
        pattern: str = "RGGB",
        kind: str | None = None,
        cache: int = 8,
        split: str = "val",
    ) -> None:
        """Find the data.

        Args:
            data: folder of SID or MCR; ``photographs`` or None takes the photographs that ship inside
                scikit-image and scikit-learn.
            folder: where a relative path starts.
            seed: of all randomness in the data.
            patch: side of training squares in pixels, a multiple of 32; 64 for the photographs, else 512.
            samples: items in an epoch; 800 for the photographs, else the number of pairs.
            ratio: exposure ratio of the held-out photographs; the largest amplification of SID. MCR's is in
                the files' names.
            pattern: color filters that the network sees. Frames of the same mosaic in another phase are cut
                by a row or a column.
            kind: ``sid``, ``mcr`` or ``photographs``; None looks at the folder.
            cache: targets to keep in memory, in each process that reads: 73 MB each for SID. As many as
                there are scenes (161 of SID's training) reads each once.
            split: list of SID to judge with: ``val``, or ``test`` once everything is decided.

        Raises:
            DataError: the data are not there; the message shows the layout that is wanted.
            OptionError: an option is out of range, or does not go with another.
            UnknownNameError: there is no such pattern, kind of data or split.
        """
        options = LowLightOptions(seed, patch, samples, ratio, pattern, cache, split)
        self._source = find_data(data, folder, kind, options)
        unnamed = ("no data named: the built-in ones",) if data is None else ()
        self.notes = (*unnamed, *self._source.notes)

    def initialize(self, model: nn.Module) -> None:
        """Draw the weights from torch's global generator, by :func:`initialize`."""
        model.apply(initialize)

    def training_data(self) -> Any:
        """Return random squares, endless."""
        return self._source.training

    def validation_data(self) -> Any:
        """Return whole frames; sizes are multiples of 32 and may differ."""
        return self._source.validation

    def loss(self, output: MonoAndColor, target: MonoAndColor) -> Tensor:
        """Return L1(mono) + L1(rgb), each the mean over all its values, as published."""
        return F.l1_loss(output[0], target[0]) + F.l1_loss(output[1], target[1])

    def metrics(self) -> Mapping[str, Metric]:
        """Return new ``psnr_mono``, ``psnr_rgb``, ``ssim_mono`` and ``ssim_rgb``."""
        return picture_metrics()

    def panels(
        self, inputs: tuple[Any, ...], target: MonoAndColor, outputs: Mapping[str, MonoAndColor]
    ) -> Mapping[str, Picture]:
        """Return the input in gray, the color picture of each output under its name and PSNR, and the target."""
        truth = target[1][0]
        pictures = {f"{name}, {psnr_8bit(rgb[0], truth):.1f} dB": rgb[0] for name, (_, rgb) in outputs.items()}
        return {
            "input": _picture(inputs[0][0])[..., 0],
            **{title: _picture(rgb) for title, rgb in pictures.items()},
            "target": _picture(truth),
        }


def _picture(values: Tensor) -> Picture:
    """Return C×H×W as H×W×C, clipped to [0, 1]."""
    clipped = values.detach().float().clamp(0, 1)
    return np.asarray(clipped.permute(1, 2, 0).cpu().numpy())
