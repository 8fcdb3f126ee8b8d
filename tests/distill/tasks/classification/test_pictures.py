"""Training samples: item k is a function of (seed, k), every picture is shown, and what is done to it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from hessrank.distill.tasks.classification import LabeledPictures, RandomPictures
from hessrank.errors import OptionError

COUNT, SIDE = 12, 16


@pytest.fixture(scope="module")
def data():
    pictures = torch.rand(COUNT, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return LabeledPictures(pictures, torch.arange(COUNT))


def same(one, other):
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_items_depend_on_seed_and_number_alone(data):
    options = {"shift": 1 / 8, "flip": True}
    forwards = RandomPictures(data, seed=3, **options)
    items = [forwards[k] for k in range(3 * COUNT)]
    torch.manual_seed(99)
    other = RandomPictures(data, seed=3, samples=5, **options)  # the length of an epoch does not matter
    assert all(same(other[k], items[k]) for k in reversed(range(3 * COUNT)))
    assert not all(same(RandomPictures(data, seed=4, **options)[k], items[k]) for k in range(COUNT))


def test_each_picture_once_in_a_row(data):
    drawn = RandomPictures(data, seed=0)
    for first in (0, COUNT, 7 * COUNT):
        assert sorted(int(drawn[k][1]) for k in range(first, first + COUNT)) == list(range(COUNT))
    assert [int(drawn[k][1]) for k in range(COUNT)] != list(range(COUNT))


def test_pictures_as_they_are_without_shift_and_flip(data):
    drawn = RandomPictures(data, seed=0)
    for picture, label in (drawn[k] for k in range(COUNT)):
        assert torch.equal(picture, data.pictures[label])


def test_flips_half_of_them(data):
    drawn = RandomPictures(data, seed=0, flip=True)
    flipped = Counter()
    for picture, label in (drawn[k] for k in range(200)):
        original = data.pictures[label]
        assert torch.equal(picture, original) or torch.equal(picture, original.flip(-1))
        flipped[torch.equal(picture, original)] += 1
    assert 70 < flipped[True] < 130


def test_shifts_reach_every_offset_and_reflect_the_edges(data):
    drawn = RandomPictures(data, seed=0, shift=1 / 8)  # 2 of 16 pixels
    offsets = Counter()
    for picture, label in (drawn[k] for k in range(400)):
        assert picture.shape == (2, SIDE, SIDE)
        original = data.pictures[label]
        found = []
        for down in range(-2, 3):
            for right in range(-2, 3):
                # pixel (r, c) shows (r + down, c + right), mirrored about the first and last pixel
                rows, columns = (
                    torch.tensor([SIDE - 1 - abs(SIDE - 1 - abs(i + step)) for i in range(SIDE)])
                    for step in (down, right)
                )
                if torch.equal(picture, original[:, rows][:, :, columns]):
                    found.append((down, right))
        assert len(found) == 1
        offsets[found[0]] += 1
    assert len(offsets) == 25


def test_epoch_length(data):
    assert len(RandomPictures(data, seed=0)) == COUNT
    assert len(RandomPictures(data, seed=0, samples=5)) == 5
    assert RandomPictures.endless


@pytest.mark.parametrize("samples", [0, -3, 2.5])
def test_epoch_length_that_is_none(data, samples):
    with pytest.raises(OptionError, match="samples"):
        RandomPictures(data, seed=0, samples=samples)


def test_no_item_before_the_first(data):
    with pytest.raises(IndexError):
        RandomPictures(data, seed=0)[-1]
