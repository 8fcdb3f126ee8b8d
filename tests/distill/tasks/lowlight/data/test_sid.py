"""The SID data set, of small DNGs under its own names: LibRaw looks at the content."""

from __future__ import annotations

import builtins
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.raw_files import save_dng
from numpy.lib.stride_tricks import sliding_window_view

from hessrank.distill.tasks.lowlight import SidPair, TrainingSquares, WholeFrames, develop, sid_pairs
from hessrank.distill.tasks.lowlight.data.sid import MISALIGNED, SID_LAYOUT, is_sid
from hessrank.errors import DataError, UnknownNameError

rawpy = pytest.importorskip("rawpy")

PHASES = {"RGGB": b"\0\1\1\2", "GRBG": b"\1\0\2\1", "GBRG": b"\1\2\0\1", "BGGR": b"\2\1\1\0"}
ROWS = {
    "train": [
        ("00001_00_0.04s", "00001_00_10s"),
        ("00001_00_0.1s", "00001_00_10s"),
        ("00002_00_0.1s", "00002_00_30s"),
    ],
    "val": [("20001_00_0.033s", "20001_00_10s")],
    "test": [("10034_00_0.1s", "10034_00_30s"), ("10003_04_0.1s", "10003_00_10s")],
}


def counts(name, shape=(64, 96)):
    """A night of few counts above 512, or a day."""
    rng = np.random.default_rng(sum(map(ord, name)))
    return rng.integers(500, 700 if "0." in name else 4096, shape, dtype=np.uint16)


def make_sid(root, pattern="RGGB", shape=(64, 96)):
    for split, rows in ROWS.items():
        lines = [f"./Sony/short/{short}.ARW ./Sony/long/{long}.ARW ISO200 F8" for short, long in rows]
        (root / f"Sony_{split}_list.txt").write_text("\n".join(lines) + "\n\n")
        for row in rows:
            for name, folder in zip(row, ("short", "long"), strict=True):
                path = root / "Sony" / folder / f"{name}.ARW"
                path.parent.mkdir(parents=True, exist_ok=True)
                save_dng(path, counts(name, shape), pattern=PHASES[pattern])
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_sid(tmp_path_factory.mktemp("sid"))


def amplified(name, ratio):
    return np.minimum(np.maximum(counts(name).astype(float) - 512, 0) / 15871 * ratio, 1)


def developed(path):
    with rawpy.imread(str(path)) as raw:
        rgb = raw.postprocess(use_camera_wb=True, no_auto_bright=True, half_size=False, output_bps=16)
    return (rgb / 65535).transpose(2, 0, 1)


def refused(root, split="train", **options):
    with pytest.raises(DataError) as caught:
        sid_pairs(root, split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_are_pairs_with_their_ratio(root):
    pairs, notes = sid_pairs(root)
    assert [pair.dark for pair in pairs] == [root / "Sony" / "short" / f"{short}.ARW" for short, _ in ROWS["train"]]
    assert [pair.reference for pair in pairs] == [root / "Sony" / "long" / f"{long}.ARW" for _, long in ROWS["train"]]
    assert [pair.gain for pair in pairs] == pytest.approx([250, 100, 300])
    assert pairs[0].shape == (64, 96)
    assert notes == []


def test_amplification_has_a_limit(root):
    assert sid_pairs(root, "val")[0][0].gain == 300  # 10 / 0.033 is 303
    assert [pair.gain for pair in sid_pairs(root, ratio=120.0)[0]] == pytest.approx([120, 100, 120])


def test_whole_frames_are_those_of_the_benchmark(root):
    raw, (mono, rgb) = WholeFrames(sid_pairs(root, "val")[0])[0]
    np.testing.assert_allclose(raw[0], amplified("20001_00_0.033s", 300), atol=1e-5)
    assert 0.1 < (raw == 1).float().mean() < 0.9  # clipped here and there
    target = developed(root / "Sony" / "long" / "20001_00_10s.ARW")
    assert target.std() > 0.05
    np.testing.assert_allclose(rgb, target, atol=1e-7)
    np.testing.assert_allclose(mono[0], 0.2989 * target[0] + 0.5870 * target[1] + 0.1140 * target[2], atol=1e-6)


def pixels_of(square, frame):
    """Rows and columns, in the frame, of the pixels of a square that was cut out and maybe flipped."""
    rows, columns = np.indices(frame.shape)
    for up, left in [(1, 1), (1, -1), (-1, 1), (-1, -1)]:
        windows = sliding_window_view(frame[::up, ::left], square.shape)
        for place in np.argwhere(np.isclose(windows, square, atol=1e-5).all(axis=(2, 3))):
            cut = tuple(slice(start, start + 32) for start in place)
            return rows[::up, ::left][cut], columns[::up, ::left][cut]
    return None


def test_squares_are_cut_out_of_input_and_target_alike_and_in_phase(root):
    data = TrainingSquares(sid_pairs(root)[0], size=32, seed=0)
    frames = [amplified(short, ratio) for (short, _), ratio in zip(ROWS["train"], (250, 100, 300), strict=True)]
    used = []
    for index in range(6):
        raw, (_, rgb) = data[index]
        found = {i: pixels for i, frame in enumerate(frames) if (pixels := pixels_of(raw[0].numpy(), frame))}
        ((number, (rows, columns)),) = found.items()
        assert rows[0, 0] % 2 == columns[0, 0] % 2 == 0
        target = developed(root / "Sony" / "long" / f"{ROWS['train'][number][1]}.ARW")
        np.testing.assert_allclose(rgb, target[:, rows, columns], atol=1e-7)
        used.append(number)
    assert sorted(used) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("pattern", "row", "column"), [("GRBG", 0, 1), ("GBRG", 1, 0), ("BGGR", 1, 1)])
def test_other_phases_are_cut_until_they_are_rggb(tmp_path, pattern, row, column):
    root = make_sid(tmp_path, pattern, (66, 98))
    (pair,) = sid_pairs(root, "val")[0]
    assert pair.shape == (66 - row, 98 - column)
    frame = np.minimum(np.maximum(counts("20001_00_0.033s", (66, 98)).astype(float) - 512, 0) / 15871 * 300, 1)
    np.testing.assert_allclose(pair.raw()[0], frame[row:, column:], atol=1e-5)
    np.testing.assert_allclose(pair.target() / 65535, developed(pair.reference)[:, row:, column:], atol=1e-9)
    as_it_is = sid_pairs(root, "val", pattern=pattern)[0][0]
    assert as_it_is.shape == (66, 98)


def test_pattern_that_the_camera_has_not(root):
    (pair,) = sid_pairs(root, "val", pattern="RYYB")[0]
    with pytest.raises(
        DataError, match=r"short/20001_00_0\.033s\.ARW: its mosaic is RGGB, not RYYB; set pattern: RGGB"
    ):
        WholeFrames([pair])


def test_misaligned_scenes_are_left_out_and_it_is_said(root):
    pairs, notes = sid_pairs(root, "test")
    assert [pair.dark.name for pair in pairs] == ["10003_04_0.1s.ARW"]
    assert notes == ["Sony_test_list.txt: left out 1 of 2 pairs, scenes 10034, 10045, 10172 are misaligned"]
    assert MISALIGNED == ("10034", "10045", "10172")


def test_which_folder_is_sid(root, tmp_path):
    assert is_sid(root)
    assert not is_sid(tmp_path)
    assert not is_sid(tmp_path / "nowhere")
    (tmp_path / "Sony" / "short").mkdir(parents=True)
    assert is_sid(tmp_path)


def test_missing_list_shows_the_layout(tmp_path):
    message = refused(tmp_path, "val")
    assert message == f"{tmp_path}/Sony_val_list.txt: there is no such file; a folder of SID holds {SID_LAYOUT}"
    assert "Sony/short/*.ARW and Sony/long/*.ARW" in message


def test_unknown_list(root):
    with pytest.raises(UnknownNameError, match="no list of SID named 'vals'; nearest is 'val'"):
        sid_pairs(root, "vals")


@pytest.mark.parametrize(
    "row", ["./Sony/short/00001_00_0.1s.ARW", "a b c d", "./Sony/short/x.ARW ./Sony/long/00001_00_10s.ARW ISO200 F8"]
)
def test_malformed_row(tmp_path, root, row):
    (tmp_path / "Sony").symlink_to(root / "Sony")
    good = (root / "Sony_train_list.txt").read_text().splitlines()[0]
    (tmp_path / "Sony_train_list.txt").write_text(f"{good}\n\n{row}\n")
    assert f"Sony_train_list.txt:3: {row!r} is no row './Sony/short/" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"\n", bytes(range(128, 256)) * 9])
def test_list_without_a_pair(tmp_path, content):
    (tmp_path / "Sony_train_list.txt").write_bytes(content)
    assert "Sony_train_list.txt:" in refused(tmp_path)
    assert len(refused(tmp_path)) < 400


@pytest.mark.parametrize("folder", ["short", "long"])
def test_row_of_a_file_that_is_not_there(tmp_path, folder):
    root = make_sid(tmp_path)
    missing = next((root / "Sony" / folder).glob("00002*"))
    missing.unlink()
    assert refused(root) == f"{root}/Sony_train_list.txt:3: there is no file {missing}; is the data set complete?"


def test_damaged_reference(tmp_path):
    root = make_sid(tmp_path)
    path = root / "Sony" / "long" / "20001_00_10s.ARW"
    path.write_bytes(b"not a camera's file")
    with pytest.raises(DataError, match=r"20001_00_10s\.ARW: LibRaw cannot read it"):
        WholeFrames(sid_pairs(root, "val")[0])[0]
    with pytest.raises(DataError, match="LibRaw cannot read it"):
        develop(path)


def test_development_lies_as_the_mosaic_does(tmp_path):
    for name, orientation in (("level", 1), ("upright", 6)):
        save_dng(tmp_path / f"{name}.dng", counts("10s"), orientation=orientation)
    assert developed(tmp_path / "upright.dng").shape == (3, 96, 64)  # what LibRaw does by itself
    np.testing.assert_array_equal(develop(tmp_path / "upright.dng"), develop(tmp_path / "level.dng"))


def test_development_that_fails(root, monkeypatch):
    class Broken:
        sizes = SimpleNamespace(raw_height=8, raw_width=8, height=8, width=8)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def postprocess(self, **_):
            raise rawpy.LibRawError("two\nlines")

    monkeypatch.setattr(rawpy, "imread", lambda _: Broken())
    with pytest.raises(DataError, match=r"20001_00_10s\.ARW: LibRaw cannot develop it: two lines$"):
        develop(root / "Sony" / "long" / "20001_00_10s.ARW")


def test_without_rawpy(root, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "rawpy":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"pip install 'rawpy>=0\.24'"):
        TrainingSquares(sid_pairs(root)[0], size=32, seed=0)


def test_frame_smaller_than_a_square(root):
    with pytest.raises(DataError, match=r"00001_00_0\.04s\.ARW: it has 64×96 pixels, too few for squares of 96"):
        TrainingSquares(sid_pairs(root)[0], size=96, seed=0)


def test_each_reference_is_developed_once(root, monkeypatch):
    reads = []
    real = SidPair.target
    monkeypatch.setattr(SidPair, "target", lambda pair: reads.append(pair.reference.name) or real(pair))
    data = TrainingSquares(sid_pairs(root)[0], size=32, seed=0, cache=2)
    first = [data[i] for i in range(9)]
    assert sorted(reads) == ["00001_00_10s.ARW", "00002_00_30s.ARW"]
    anew = TrainingSquares(sid_pairs(root)[0], size=32, seed=0, cache=0)
    assert all(torch.equal(anew[i][1][1], first[i][1][1]) for i in range(9))
    assert len(reads) == 11
