"""The built-in digits: values, the split, and what is said without scikit-learn."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from hessrank.distill.tasks.classification import load_digits
from hessrank.errors import DataError


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.fixture(scope="module")
def original():
    return importlib.import_module("sklearn.datasets").load_digits()


def test_shapes_types_and_range(digits):
    for data in (digits.training, digits.validation):
        assert data.pictures.dtype == torch.float32
        assert data.pictures.shape == (len(data), 1, 8, 8)
        assert data.labels.dtype == torch.int64
        assert (data.pictures.min(), data.pictures.max()) == (0, 1)
    picture, label = digits.validation[3]
    assert (picture.shape, picture.shape, label.shape) == (digits.shape, (1, 8, 8), ())
    assert digits.classes == tuple("0123456789")


def test_each_digit_is_in_one_part_with_its_label(digits, original):
    def rows(pictures, labels):
        table = np.column_stack((np.asarray(pictures).reshape(-1, 64) * (16 if pictures.max() <= 1 else 1), labels))
        return table[np.lexsort(table.T)]

    parts = (digits.training, digits.validation)
    found = rows(torch.cat([p.pictures for p in parts]).numpy(), torch.cat([p.labels for p in parts]).numpy())
    np.testing.assert_array_equal(found, rows(original.images, original.target))


def test_every_fifth_of_each_class_is_held_out(digits, original):
    for label in range(10):
        of_class = original.images[original.target == label] / 16
        held_out = digits.validation.pictures[digits.validation.labels == label].squeeze(1)
        np.testing.assert_array_equal(held_out, of_class[::5].astype(np.float32))
    assert (len(digits.training), len(digits.validation)) == (1433, 364)
    assert digits.notes == ("scikit-learn's 1797 digits of 8×8 pixels, 364 of them held out",)


def test_split_depends_on_nothing(digits):
    torch.manual_seed(123)
    np.random.seed(123)
    assert torch.equal(load_digits().validation.pictures, digits.validation.pictures)


def test_without_scikit_learn(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(DataError, match=r"inside scikit-learn: .*pip install 'scikit-learn>=1\.5'$"):
        load_digits()
