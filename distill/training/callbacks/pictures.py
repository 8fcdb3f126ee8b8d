"""What the network makes of a few validation samples, after every epoch, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from scipy.ndimage import uniform_filter
from torch import nn

from hessrank.data.batch import Batch, bind_fields, make_batch, single_samples
from hessrank.data.samples import as_samples
from hessrank.distill.tasks.base import Picture, Task
from hessrank.distill.training.evaluate import Network, on_device
from hessrank.distill.training.inputs.loaders import is_dataset
from hessrank.distill.training.loop.lightning_module import Training
from hessrank.distill.training.outputs.file_names import picture_name
from hessrank.drawing.figures import new_figure, plain_label
from hessrank.files.atomic_write import written_whole

_PANEL_INCHES, _DPI = 3.2, 100
_TARGET = "target"  # title of the panel that the others are compared with
_CROP = 4  # part of the shorter side
_GAIN = 5  # of errors, so that they are seen

Row = Mapping[str, Picture | None]
"""Pictures by title, from left to right; None leaves a place empty."""


class EpochPictures(Callback):
    """Draws ``pictures/epoch0007.png``: each sample's panels, and details of them."""

    def __init__(
        self, folder: Path, task: Task, samples: Sequence[Batch], floats: Sequence[Any], name: str, count: int
    ) -> None:
        """Draw into ``folder``.

        Args:
            folder: of the run.
            task: whose panels they are.
            samples: batches of one.
            floats: what the float network makes of each.
            name: what to call the student.
            count: how many samples to draw: those that tell most.
        """
        self._folder, self._task, self._name, self._count = folder, task, name, count
        self._samples, self._floats = list(samples), list(floats)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw this epoch's picture."""
        if not trainer.is_global_zero:
            return
        student = cast(Training, pl_module).student.eval()
        found = [
            (one, {"float": expected, self._name: made})
            for one, expected, made in zip(
                self._samples, self._floats, answers(student, self._samples, pl_module.device), strict=True
            )
        ]
        found.sort(key=lambda pair: -self._task.picture_interest(pair[0].target, pair[1]))  # ties keep their order
        panels = [self._task.panels(one.args, one.target, outputs) for one, outputs in found[: self._count]]
        rows = [row for panel in panels for row in (panel, *detail_rows(panel))]
        if rows and all(rows):
            path = self._folder / picture_name(trainer.current_epoch + 1)
            path.parent.mkdir(exist_ok=True)
            draw_panels(rows, path)


def chosen_samples(data: Any, signature: nn.Module, count: int) -> list[Batch]:
    """Return samples as batches of one: spread over a data set, a loader's first.

    Args:
        data: validation data.
        signature: the module whose ``forward`` binds their fields.
        count: how many; fewer if there are fewer.
    """
    if not count:
        return []
    if is_dataset(data):
        samples = as_samples(data)
        places = sorted({round(place) for place in np.linspace(0, len(samples) - 1, count)})
        return [make_batch(samples, [place], signature, needs_target=True) for place in places]
    bound = (bind_fields(fields, signature, needs_target=True) for fields in data)
    return list(islice((one for batch in bound for one in single_samples(batch)), count))


@torch.no_grad()
def answers(network: Network, samples: Sequence[Batch], device: torch.device) -> list[Any]:
    """Return what a network makes of each sample, on the CPU."""
    found = []
    for sample in samples:
        there = on_device(sample, device)
        output = network(*there.args, **there.kwargs)
        found.append(Batch((output,)).map(lambda tensor: tensor.cpu()).args[0])
    return found


def detail_rows(panels: Mapping[str, Picture]) -> list[Row]:
    """Return a crop of every panel, and how far each is from the target.

    There is nothing to return without a panel ``target``.

    The crop is where the target has most detail, a quarter of its shorter side; the error is the mean distance of
    the channels, five times enlarged.

    Args:
        panels: pictures of one sample by title.
    """
    if _TARGET not in panels:
        return []
    target = panels[_TARGET]
    alike = {title: panel if panel.shape[:2] == target.shape[:2] else None for title, panel in panels.items()}
    rows, columns = _most_detailed(target)
    crops = {
        f"{title.partition(',')[0]}, detail": None if panel is None else panel[rows, columns]
        for title, panel in alike.items()
    }
    errors = {
        f"{title.partition(',')[0]}, error × {_GAIN}": None
        if panel is None or title == _TARGET or panel.shape != target.shape
        else np.clip(_GAIN * _gray(np.abs(panel - target)), 0, 1)
        for title, panel in alike.items()
    }
    return [crops, errors] if any(error is not None for error in errors.values()) else []


def _gray(picture: Picture) -> Picture:
    """Return the mean over the channels of an H×W×C picture; an H×W one as it is."""
    return picture if picture.ndim == 2 else picture.mean(2)


def _most_detailed(picture: Picture) -> tuple[slice, slice]:
    """Return the square with the largest variance of brightness, a quarter of the shorter side wide."""
    gray = _gray(picture).astype(np.float64)
    side = max(1, min(gray.shape) // _CROP)
    variance = uniform_filter(gray**2, side) - uniform_filter(gray, side) ** 2
    inside = variance[
        side // 2 : side // 2 + gray.shape[0] - side + 1, side // 2 : side // 2 + gray.shape[1] - side + 1
    ]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return slice(int(top), int(top) + side), slice(int(left), int(left) + side)


def draw_panels(rows: Sequence[Row], path: Path) -> None:
    """Draw one row a sample, one column a panel, and write it whole or not at all.

    Args:
        rows: pictures by title.
        path: of the PNG.
    """
    columns = max(map(len, rows))
    heights = [
        _PANEL_INCHES * max(p.shape[0] / p.shape[1] for p in row.values() if p is not None) + 0.3 for row in rows
    ]
    figure = new_figure(columns * _PANEL_INCHES, sum(heights))
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axes_row, row in zip(grid, rows, strict=True):
        for axes in axes_row:
            axes.axis("off")
        for axes, (title, picture) in zip(axes_row, row.items(), strict=False):
            if picture is not None:
                axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
                axes.set_title(plain_label(title), fontsize=9)
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=_DPI)
