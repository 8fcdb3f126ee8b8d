"""RAW files: exposure by name, scaling, crops in phase, the MCR data set, and cameras' files that are broken."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.places import SHARED

from hessrank.data import load_data
from hessrank.data.crop import center_crop
from hessrank.data.raw.exposure import expose, long_partner, parse_mcr, parse_sid, sid_gain
from hessrank.errors import DataError

MCR = SHARED / "mcr"
ROWS, COLUMNS = 1024, 1280


def mcr_file(path, value=10):
    path.write_bytes(bytes([value]) * (ROWS * COLUMNS))
    return path


def refused(path, *words, **options):
    with pytest.raises(DataError) as caught:
        load_data(str(path), **options)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_scaling_is_that_of_sid():
    raw = np.array([[0, 512, 513, 16383]], dtype=np.uint16)
    np.testing.assert_allclose(expose(raw, black=512, white=16383, gain=1), [[0, 0, 1 / 15871, 1]], rtol=1e-6)
    np.testing.assert_allclose(expose(raw, black=512, white=16383, gain=300), [[0, 0, 300 / 15871, 1]], rtol=1e-6)
    assert expose(raw, black=512, white=16383, gain=300).dtype == np.float32


def test_scaling_with_a_black_level_for_each_pixel():
    black = np.array([[100, 200]], dtype=np.float32)
    np.testing.assert_allclose(expose(np.array([[150, 150]]), black=black, white=300, gain=1), [[0.25, 0]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("00001_00_0.1s.ARW", ("00001", 0.1)),
        ("20211_09_0.033s.ARW", ("20211", 0.033)),
        ("00001_00_10s.ARW", ("00001", 10.0)),
        ("00001_00_0s.ARW", None),
        ("1_00_0.1s.ARW", None),
        ("DSC00001.ARW", None),
    ],
)
def test_exposure_names(name, expected):
    assert parse_sid(Path(name)) == expected


@pytest.mark.parametrize(
    ("name", "color", "scene", "gain"),
    [
        ("C00400_48mp_0x8_0x03ff.raw", True, 400, 12287 / 1023),
        ("M00499_48mp_0x8_0x2fff.raw", False, 499, 1.0),
        ("C00500_48mp_0x8_0x00ff.raw", True, 500, 1023 / 255),
    ],
)
def test_mcr_names(name, color, scene, gain):
    found = parse_mcr(Path(name))
    assert (found.color, found.scene, found.gain) == (color, scene, gain)


@pytest.mark.parametrize("name", ["C00400_48mp_0x8_0x0000.raw", "DSC1.raw", "X00400_48mp_0x8_0x03ff.raw"])
def test_names_that_are_none_of_mcr(name):
    assert parse_mcr(Path(name)) is None


@pytest.mark.parametrize("place", ["same", "sibling"])
def test_long_partner(tmp_path, place):
    short = tmp_path / "short"
    long = short if place == "same" else tmp_path / "long"
    for folder, name in ((short, "00001_00_0.1s.ARW"), (long, "00001_00_10s.ARW"), (long, "00002_00_30s.ARW")):
        folder.mkdir(exist_ok=True)
        (folder / name).touch()
    assert long_partner(short / "00001_00_0.1s.ARW") == long / "00001_00_10s.ARW"
    assert sid_gain(short / "00001_00_0.1s.ARW") == pytest.approx(100)
    assert sid_gain(long / "00001_00_10s.ARW") is None


def test_long_partner_of_a_relative_name(tmp_path, monkeypatch):
    for folder, name in (("short", "00001_00_0.1s.ARW"), ("long", "00001_00_10s.ARW")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    monkeypatch.chdir(tmp_path / "short")
    assert sid_gain(Path("00001_00_0.1s.ARW")) == pytest.approx(100)


def test_a_short_exposure_is_no_reference_of_a_shorter_one(tmp_path):
    for name in ("00001_00_0.04s.ARW", "00001_00_0.1s.ARW"):
        (tmp_path / name).touch()
    assert sid_gain(tmp_path / "00001_00_0.04s.ARW") is None


def test_ratio_is_300_at_most(tmp_path):
    for name in ("00001_00_0.033s.ARW", "00001_00_30s.ARW"):
        (tmp_path / name).touch()
    assert sid_gain(tmp_path / "00001_00_0.033s.ARW") == 300


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 3), (6, 10), (10, 10)])
def test_crops_keep_the_phase(height, width):
    rows, columns = np.indices((10, 10))
    colors = torch.from_numpy(rows % 2 * 2 + columns % 2)[None]
    cropped = center_crop(colors, height, width, step=2)
    assert torch.equal(cropped, colors[:, :height, :width])


def test_mcr_gain_clip_and_description(tmp_path):
    data = load_data(str(mcr_file(tmp_path / "C00600_48mp_0x8_0x00ff.raw")))
    assert data.dataset[0].shape == (1, ROWS, COLUMNS)
    assert data.dataset[0].unique().item() == pytest.approx(10 / 255 * 1023 / 255, rel=1e-6)
    assert json.loads(json.dumps(data.description)) == data.description
    assert data.description["gains"] == [1023 / 255]
    assert load_data(str(tmp_path), gain=1000.0).dataset[0].unique().item() == 1
    assert load_data(str(tmp_path), gain=2.0).dataset[0].unique().item() == pytest.approx(20 / 255)


def test_unknown_shutter_is_said(tmp_path):
    data = load_data(str(mcr_file(tmp_path / "frame.raw")))
    assert data.description["gains"] == [1.0]
    assert any("gain 1" in phrase for phrase in data.description["processing"])


def test_monochrome_frames_are_no_input(tmp_path):
    mono = mcr_file(tmp_path / "M00400_48mp_0x8_0x03ff.raw")
    refused(mono, "monochrome")
    refused(tmp_path, "monochrome")
    mcr_file(tmp_path / "C00400_48mp_0x8_0x03ff.raw")
    data = load_data(str(tmp_path))
    assert data.description["files"] == ["C00400_48mp_0x8_0x03ff.raw"]


def test_mcr_file_of_another_size(tmp_path):
    (tmp_path / "C00400_48mp_0x8_0x03ff.raw").write_bytes(b"x" * 77)
    refused(tmp_path, "C00400_48mp_0x8_0x03ff.raw", "77 bytes")


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 2000, 32), (32, 32)])
def test_shapes_that_are_none_of_a_frame(tmp_path, shape):
    refused(mcr_file(tmp_path / "C00400_48mp_0x8_0x03ff.raw"), "--input-shape", input_shape=shape)


@pytest.mark.parametrize("gain", [0.0, -1.0, float("nan"), float("inf")])
def test_gains_that_are_none(tmp_path, gain):
    refused(mcr_file(tmp_path / "C00400_48mp_0x8_0x03ff.raw"), "gain", gain=gain)


@pytest.mark.parametrize("content", [b"", b"no RAW file" * 99])
def test_broken_camera_file(tmp_path, content):
    pytest.importorskip("rawpy")
    (tmp_path / "00001_00_0.1s.ARW").write_bytes(content)
    refused(tmp_path / "00001_00_0.1s.ARW", "00001_00_0.1s.ARW")
    refused(tmp_path, "00001_00_0.1s.ARW")


def test_camera_files_without_rawpy(tmp_path, monkeypatch):
    (tmp_path / "a.dng").touch()
    monkeypatch.setitem(sys.modules, "rawpy", None)
    refused(tmp_path / "a.dng", "pip install 'rawpy>=0.24'")


@pytest.mark.skipif(not MCR.is_dir(), reason="the MCR scene is not here")
def test_real_scene():
    data = load_data(str(MCR), input_shape=(1, 512, 514))
    assert len(data.dataset) == 4
    assert all(name.startswith("C") for name in data.description["files"])
    raw = np.fromfile(MCR / data.description["files"][1], np.uint8).reshape(ROWS, COLUMNS)
    expected = np.minimum(raw / 255 * 12287 / 1023, 1)[256 : 256 + 512, 382 : 382 + 514]
    np.testing.assert_allclose(data.dataset[1][0].numpy(), expected, atol=1e-6)
