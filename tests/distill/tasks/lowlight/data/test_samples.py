"""Pairs as samples: order, squares, memory, whole frames, sizes that do not fit."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from hessrank.distill.tasks.lowlight import TrainingSquares, WholeFrames
from hessrank.distill.tasks.lowlight.data.pairs import mono_and_rgb
from hessrank.errors import DataError

READ: Counter[str] = Counter()


@dataclass(frozen=True)
class MadePair:
    """A frame whose pixels say where they were: raw is the row, the target number, column and phase."""

    number: int
    scene: int
    shape: tuple[int, int] = (48, 70)
    target_shape: tuple[int, int] | None = None

    @property
    def dark(self) -> Path:
        return Path(f"dark{self.number}")

    @property
    def reference(self) -> Path:
        return Path(f"scene{self.scene}")

    def raw(self):
        rows, columns = np.indices(self.shape)
        return ((rows * 70 + columns) / 4000).astype(np.float32)[None] + np.float32(self.number)

    def target(self):
        READ[self.reference.name] += 1
        rows, columns = np.indices(self.target_shape or self.shape)
        phase = rows % 2 * 2 + columns % 2
        place = (rows * 70 + columns) / 4000
        return np.stack((place, phase, np.full(place.shape, self.scene), place)).astype(np.float32)


@pytest.fixture(autouse=True)
def _nothing_read():
    READ.clear()


def pairs(count, scenes):
    return [MadePair(number, number % scenes) for number in range(count)]


def test_squares_are_of_one_place_in_input_and_target_and_in_phase():
    data = TrainingSquares(pairs(3, 3), size=32, seed=0)
    for index in range(12):
        raw, (mono, rgb) = data[index]
        assert (raw.shape, mono.shape, rgb.shape) == ((1, 32, 32), (1, 32, 32), (3, 32, 32))
        assert torch.equal(rgb[0], torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat(16, 16))
        assert torch.equal(mono[0], rgb[2])
        number = raw.floor()
        assert torch.allclose(raw - number, mono, atol=1e-6)
        assert torch.equal(number[0], rgb[1])  # of scene n is pair n


def test_items_depend_on_seed_and_index_alone():
    one, same, other = (
        TrainingSquares(pairs(5, 2), size=32, seed=seed, cache=cache) for seed, cache in ((1, 8), (1, 0), (2, 8))
    )
    backward = {i: same[i] for i in reversed(range(12))}
    for i in range(12):
        raw, (mono, rgb) = one[i]
        assert torch.equal(raw, backward[i][0])
        assert torch.equal(rgb, backward[i][1][1])
        assert torch.equal(mono, backward[i][1][0])
    assert any(not torch.equal(one[i][0], other[i][0]) for i in range(12))
    assert len({float(one[i][0].sum()) for i in range(12)}) == 12


def test_length_and_indices():
    data = TrainingSquares(pairs(5, 2), size=32, seed=1)
    assert (len(data), data.endless) == (5, True)
    longer = TrainingSquares(pairs(5, 2), size=32, seed=1, length=100)
    assert len(longer) == 100
    assert torch.equal(longer[57][0], data[57][0])
    with pytest.raises(IndexError):
        data[-1]


def test_every_turn_takes_every_pair_once_in_another_order():
    data = TrainingSquares(pairs(20, 20), size=32, seed=0)
    turns = [[int(data[turn * 20 + i][0].min()) for i in range(20)] for turn in range(3)]
    assert all(sorted(turn) == list(range(20)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) == 3
    assert turns[0] != list(range(20))


def test_near_targets_are_read_once_a_turn():
    near = TrainingSquares(pairs(24, 6), size=32, seed=0, cache=2, near=2)
    order = [int(near[i][1][1][1].min()) for i in range(24)]
    assert set(READ.values()) == {1}
    assert [len(set(order[start : start + 8])) for start in (0, 8, 16)] == [2, 2, 2]
    assert any(order[i] != order[i + 1] for i in range(7))  # mixed, not one after the other
    READ.clear()
    far = TrainingSquares(pairs(24, 6), size=32, seed=0, cache=2)
    for i in range(24):
        far[i]
    assert READ.total() > 12


@pytest.mark.parametrize(("cache", "reads"), [(0, 6), (1, 5), (2, 4), (3, 3)])
def test_the_least_recently_used_target_is_forgotten(monkeypatch, cache, reads):
    data = TrainingSquares(pairs(3, 3), size=32, seed=0, cache=cache)
    monkeypatch.setattr(data, "_pair_of", lambda index: [0, 0, 1, 0, 2, 1][index])
    for i in range(6):
        data[i]
    assert READ.total() == reads


def test_training_data_can_be_sent_to_another_process():
    data = TrainingSquares(pairs(3, 3), size=32, seed=0)
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[4][0], data[4][0])


def test_whole_frames_are_cropped_about_the_middle_at_even_offsets():
    data = WholeFrames([MadePair(0, 0), MadePair(1, 0)])
    raw, (mono, rgb) = data[0]
    assert len(data) == 2
    assert (raw.shape, mono.shape, rgb.shape) == ((1, 32, 64), (1, 32, 64), (3, 32, 64))
    assert torch.allclose(raw[0, 0, 0], torch.tensor((8 * 70 + 2) / 4000))  # (48 - 32) / 2, (70 - 64) / 2 made even
    assert torch.equal(raw, mono)
    assert torch.equal(rgb[0, :2, :2], torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    data[1]
    assert READ.total() == 1
    with pytest.raises(IndexError):
        data[2]


def test_targets_of_integers_get_their_luma():
    target = np.random.default_rng(0).integers(0, 65536, (3, 4, 5)).astype(np.uint16)
    mono, rgb = mono_and_rgb(target)
    assert rgb.dtype == mono.dtype == torch.float32
    np.testing.assert_array_equal(rgb, target.astype(np.float32) / np.float32(65535))
    expected = (0.2989 * target[0] + 0.5870 * target[1] + 0.1140 * target[2].astype(float)) / 65535
    np.testing.assert_allclose(mono[0], expected, rtol=1e-6)


def test_targets_with_a_monochrome_picture_of_their_own():
    target = np.random.default_rng(0).integers(0, 256, (4, 4, 5)).astype(np.uint8)
    mono, rgb = mono_and_rgb(target)
    np.testing.assert_array_equal(mono, target[:1].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(rgb, target[1:].astype(np.float32) / np.float32(255))


def test_frames_smaller_than_a_square():
    small = MadePair(1, 1, (40, 70))
    with pytest.raises(DataError, match=r"^dark1: it has 40×70 pixels, too few for squares of 64$"):
        TrainingSquares([small], size=64, seed=0)
    later = TrainingSquares([MadePair(0, 0, (64, 70)), small], size=64, seed=0)
    with pytest.raises(DataError, match=r"^dark1: it has 40×70"):
        [later[i] for i in range(2)]
    with pytest.raises(DataError, match="too few for squares of 32"):
        WholeFrames([MadePair(1, 1, (40, 31))])


def test_target_of_another_size():
    data = WholeFrames([MadePair(0, 3, target_shape=(70, 48))])
    with pytest.raises(DataError, match=r"^dark0: it has 48×70 pixels, but its target scene3 has 70×48$"):
        data[0]
