"""What the network makes of a few validation samples, after every epoch, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import nn

from hessrank.analysis.batches import Batch, as_samples, bind_fields, make_batch, single_samples
from hessrank.distill.tasks.base import Picture, Task
from hessrank.distill.training.judging import Network, on_device
from hessrank.distill.training.loaders import is_dataset
from hessrank.distill.training.module import Training
from hessrank.files import written_whole

PICTURES = "pictures"
_PANEL_INCHES, _DPI = 3.2, 100


class Pictures(Callback):
    """Draws ``pictures/epoch0007.png``: for each sample what the task's ``panels`` gives."""

    def __init__(self, folder: Path, task: Task, samples: Sequence[Batch], floats: Sequence[Any], name: str) -> None:
        """Draw into ``folder``.

        Args:
            folder: of the run.
            task: whose panels they are.
            samples: batches of one.
            floats: what the float network makes of each.
            name: what to call the student.
        """
        self._folder, self._task, self._name = folder / PICTURES, task, name
        self._samples, self._floats = list(samples), list(floats)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw this epoch's picture."""
        if not trainer.is_global_zero:
            return
        student = cast(Training, pl_module).student.eval()
        rows = [
            self._task.panels(one.args, one.target, {"float": expected, self._name: made})
            for one, expected, made in zip(
                self._samples, self._floats, answers(student, self._samples, pl_module.device), strict=True
            )
        ]
        if rows and all(rows):
            self._folder.mkdir(exist_ok=True)
            draw_panels(rows, self._folder / f"epoch{trainer.current_epoch + 1:04d}.png")


def chosen_samples(data: Any, signature: nn.Module, count: int) -> list[Batch]:
    """Return samples as batches of one: of a data set from its first to its last, of a data loader the first.

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


def draw_panels(rows: Sequence[Mapping[str, Picture]], path: Path) -> None:
    """Draw one row a sample, one column a panel, and write it whole or not at all.

    Args:
        rows: pictures by title.
        path: of the PNG.
    """
    columns = max(map(len, rows))
    heights = [_PANEL_INCHES * max(p.shape[0] / p.shape[1] for p in row.values()) + 0.3 for row in rows]
    figure = Figure(figsize=(columns * _PANEL_INCHES, sum(heights)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axes_row, row in zip(grid, rows, strict=True):
        for axes in axes_row:
            axes.axis("off")
        for axes, (title, picture) in zip(axes_row, row.items(), strict=False):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
            axes.set_title(title, fontsize=9)
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=_DPI)
