"""Folders that hold no samples, or several kinds; images turned upright, made gray or color."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hessrank.data import load_data
from hessrank.errors import DataError


def save(path: Path, pixels: np.ndarray, **kwargs) -> Path:
    Image.fromarray(pixels).save(path, **kwargs)
    return path


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_data(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_turned_upright(tmp_path):
    pixels = np.arange(35, dtype=np.uint8).reshape(5, 7)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned a quarter
    image = load_data(save(tmp_path / "x.png", pixels, exif=exif)).dataset[0]
    assert torch.equal(image, torch.from_numpy(np.rot90(pixels, -1).copy())[None] / 255)


def test_color_to_gray_is_the_luma(tmp_path):
    path = save(tmp_path / "x.png", np.full((4, 4, 3), (255, 0, 51), np.uint8))
    assert torch.allclose(load_data(path, input_shape=(1, 4, 4)).dataset[0], torch.tensor(0.299 + 0.2 * 0.114))


def test_fingerprint_follows_the_files_that_are_used(tmp_path):
    for i, name in enumerate("ab"):
        save(tmp_path / f"{name}.png", np.full((4, 4), i, np.uint8))
    both, first = (load_data(tmp_path, num_samples=n).description["sha256"] for n in (2, 1))
    assert load_data(tmp_path).description["sha256"] == both != first
    save(tmp_path / "b.png", np.full((4, 4), 9, np.uint8))
    assert load_data(tmp_path).description["sha256"] != both
    assert load_data(tmp_path, num_samples=1).description["sha256"] == first


class TestFolderWithoutSamples:
    def test_empty(self, tmp_path):
        assert "the folder is empty" in refused(tmp_path)

    def test_nothing_known(self, tmp_path):
        (tmp_path / "x.txt").touch()
        assert "no image and no RAW file in this folder (.png" in refused(tmp_path)

    def test_sub_folders(self, tmp_path):
        (tmp_path / "cats").mkdir()
        assert "sub-folders are not read" in refused(tmp_path)

    def test_several_kinds(self, tmp_path):
        for name in ("a.png", "b.png", "c.ARW"):
            (tmp_path / name).touch()
        assert "2 images and 1 camera RAW files" in refused(tmp_path)
