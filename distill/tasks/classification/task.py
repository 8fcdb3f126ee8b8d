"""Telling pictures apart: the task ``classification``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torchmetrics import Metric

from hessrank.distill.tasks.base import TASKS, Picture, Task
from hessrank.distill.tasks.classification.digits import load_digits
from hessrank.distill.tasks.classification.image_folder import load_image_folder
from hessrank.distill.tasks.classification.metrics import Top1, class_logits, mean_cross_entropy
from hessrank.distill.tasks.classification.network import DigitNet
from hessrank.distill.tasks.classification.pictures import ClassifiedPictures, LabeledPictures, RandomPictures
from hessrank.distill.tasks.given import MeanLoss
from hessrank.errors import DataError, OptionError
from hessrank.files.paths import existing_path

DIGITS = "digits"
"""The name of the built-in data."""

_SHIFT = 1 / 8  # 4 of 32 pixels, as He et al. 2016 have it


@TASKS.register("classification")
class ClassificationTask(Task):
    """Pictures with one label each: digits that come with scikit-learn, or a folder with a sub-folder a class.

    Attributes:
        model: :class:`DigitNet`; an instance's makes one with its data's classes and channels, unless told others.
        classes: names; a label is an index into them.
        notes: what a user should know of the data, a sentence each.
    """

    monitor: str = "top1"
    mode: Literal["max", "min"] = "max"
    validation_batch_size: int = 64
    picture_candidates: int = 64
    model: Callable[..., nn.Module] = DigitNet

    def __init__(
        self,
        data: str | None = None,
        *,
        folder: Path,
        seed: int,
        size: int | None = None,
        channels: int | None = None,
        flip: bool = True,
        samples: int | None = None,
    ) -> None:
        """Find the data.

        Args:
            data: ``digits`` (also if None), or a folder with ``train/CLASS/*.png`` and ``val/CLASS/*.png``.
            folder: where relative paths start.
            seed: of the order, shifts and mirror images of training pictures.
            size: height and width that a folder's pictures are scaled and cropped to; None if all have one size.
            channels: 1 (gray) or 3 (RGB), of a folder's pictures; None for RGB as soon as one has color.
            flip: whether a folder's training pictures are mirrored at random; digits never are.
            samples: training pictures in an epoch; None for each one once.

        Raises:
            DataError: the data is not there, or not laid out so.
            OptionError: an option has no such value.
        """
        found = _load(data, folder, size, channels)
        named = data is not None
        self.classes = found.classes
        self.notes = found.notes if named else ("no data named, so the built-in digits are used", *found.notes)
        photographs = named and data != DIGITS  # a digit that is moved by a pixel of its 8 is cut
        self._training = RandomPictures(
            found.training, seed=seed, samples=samples, shift=_SHIFT * photographs, flip=flip and photographs
        )
        self._validation = found.validation
        self.model = partial(DigitNet, classes=len(found.classes), channels=found.shape[0])

    def training_data(self) -> RandomPictures:
        """Return endless ``(picture, label)``, float32 C×H×W in [0, 1] and an int64 scalar."""
        return self._training

    def validation_data(self) -> LabeledPictures:
        """Return the held-out pictures, likewise."""
        return self._validation

    def loss(self, output: Any, target: Any) -> Tensor:
        """Return the mean cross-entropy in nats.

        Args:
            output: logits B×C.
            target: labels, shape (B,).

        Raises:
            LossError: there are no logits B×C, not as many labels, or one that is none of 0 to C − 1.
        """
        return mean_cross_entropy(output, target)

    def metrics(self) -> Mapping[str, Metric]:
        """Return ``top1``, the accuracy in percent, and ``loss``, the mean cross-entropy in nats."""
        return {"top1": Top1(), "loss": MeanLoss(mean_cross_entropy)}

    def panels(self, inputs: tuple[Any, ...], target: Any, outputs: Mapping[str, Any]) -> Mapping[str, Picture]:
        """Return the picture, titled with its class and what each network took it for."""
        picture: Picture = inputs[0][0].detach().cpu().permute(1, 2, 0).numpy()
        guesses = [f"{name}: {self._named(class_logits(output).argmax(1))}" for name, output in outputs.items()]
        title = "\n".join((f"label: {self._named(target)}", *guesses))
        return {title: picture.squeeze(2) if picture.shape[2] == 1 else picture}

    def picture_interest(self, target: Any, outputs: Mapping[str, Any]) -> float:
        """Return 2 if the network in training is wrong where another is right, 1 if all are wrong, else 0."""
        *others, own = [bool(class_logits(output).argmax(1) == target) for output in outputs.values()]
        return 0.0 if own else 1.0 + any(others)

    def _named(self, labels: Tensor) -> str:
        """Return the class of a batch of one; its number if a network knows more classes than the data."""
        label = int(labels[0])
        return self.classes[label] if label < len(self.classes) else str(label)


def _load(data: str | None, folder: Path, size: int | None, channels: int | None) -> ClassifiedPictures:
    if data is None or data == DIGITS:
        if (size, channels) != (None, None):
            raise OptionError("size and channels are for a folder of pictures; the built-in digits are 1×8×8")
        return load_digits()
    try:
        root = existing_path(data if data.startswith("~") else folder / data, error=DataError)
    except DataError as error:
        layout = "train/CLASS/*.png and val/CLASS/*.png in it"
        raise DataError(f"data {error}; give {DIGITS!r}, or a folder with {layout}") from error
    return load_image_folder(root, size=size, channels=channels)
