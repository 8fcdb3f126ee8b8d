"""Images decoded with all their bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hessrank.data.pixels import image_shape, read_pixels
from hessrank.errors import DataError


def test_bytes_are_divided_by_255_and_words_by_65535(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 51, 255]], np.uint8)).save(tmp_path / "gray.png")
    Image.fromarray(np.array([[0, 13107, 65535]], np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.array([[[255, 0, 51]]], np.uint8)).save(tmp_path / "color.png")
    for name in ("gray.png", "deep.png"):
        assert image_shape(tmp_path / name) == (1, 1, 3)
        assert read_pixels(tmp_path / name).ravel().tolist() == pytest.approx([0, 0.2, 1])
    assert image_shape(tmp_path / "color.png") == (3, 1, 1)
    assert read_pixels(tmp_path / "color.png").ravel().tolist() == pytest.approx([1, 0, 0.2])


def test_an_image_is_upright(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 255]], np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # lies on its side
    image.save(tmp_path / "turned.png", exif=exif)
    assert image_shape(tmp_path / "turned.png") == (1, 2, 1)
    assert read_pixels(tmp_path / "turned.png")[0, :, 0].tolist() == [0.0, 1.0]


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    path.write_text("no image")
    with pytest.raises(DataError, match="not an image of a kind that is read"):
        read_pixels(path)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match="cut short or damaged"):
        read_pixels(path)
