"""Handwritten digits to train and judge a classifier with, where no data set is at hand.

They lie inside the wheel of scikit-learn (Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits",
UCI 1998), so nothing is downloaded.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torch.nn.functional as F

from hessrank.distill.tasks.classification.pictures import ClassifiedPictures, LabeledPictures
from hessrank.errors import DataError
from hessrank.requirements import install_command

_BRIGHTEST = 16
_HOLD_OUT_EVERY = 5


def load_digits() -> ClassifiedPictures:
    """Return 1797 digits as float32 1×8×8 in [0, 1], a fixed fifth of each class held out.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        datasets: Any = importlib.import_module("sklearn.datasets")
    except ModuleNotFoundError as error:
        raise DataError(f"the digits lie inside scikit-learn: {install_command('scikit-learn')}") from error
    found = datasets.load_digits()
    pictures = torch.from_numpy(found.images).float().div(_BRIGHTEST).unsqueeze(1)
    labels = torch.from_numpy(found.target).long()
    number = F.one_hot(labels).cumsum(0).gather(1, labels[:, None]).squeeze(1) - 1  # of each digit in its class
    held_out = number % _HOLD_OUT_EVERY == 0
    return ClassifiedPictures(
        classes=tuple(str(name) for name in found.target_names),
        shape=(1, *found.images.shape[1:]),
        training=LabeledPictures(pictures[~held_out], labels[~held_out]),
        validation=LabeledPictures(pictures[held_out], labels[held_out]),
        notes=(f"scikit-learn's {len(labels)} digits of 8×8 pixels, {int(held_out.sum())} of them held out",),
    )
