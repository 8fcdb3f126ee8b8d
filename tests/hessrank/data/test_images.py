"""Pictures: values, depths, sizes, channels, and files that are none."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from hessrank.data import load_data
from hessrank.errors import DataError

COLORS = np.random.default_rng(1).integers(0, 256, (6, 8, 3)).astype(np.uint8)
DEEP = np.random.default_rng(2).integers(0, 65536, (5, 7, 4)).astype(np.uint16)


def picture(path, pixels=COLORS):
    Image.fromarray(pixels).save(path)
    return path


def sample(path, **options):
    return load_data(str(path), **options).dataset[0]


def read_all(path, **options):
    dataset = load_data(str(path), **options).dataset
    return [dataset[index] for index in range(len(dataset))]


def refused(path, *words, **options):
    with pytest.raises(DataError) as caught:
        read_all(path, **options)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def write_png16(path, pixels, color_type):
    """Write a PNG with 16 bits a channel, which Pillow does only for gray."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "tif", "tiff"])
def test_lossless_pictures(tmp_path, suffix):
    found = sample(picture(tmp_path / f"a.{suffix}"))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), COLORS.transpose(2, 0, 1) / 255, atol=1e-7)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_lossy_pictures(tmp_path, suffix):
    found = sample(picture(tmp_path / f"a.{suffix}", np.full((6, 8, 3), 51, np.uint8)))
    np.testing.assert_allclose(found.numpy(), np.full((3, 6, 8), 0.2), atol=0.02)


def test_folder_is_sorted_and_skips_what_is_no_picture(tmp_path):
    for value, name in enumerate(["c", "a", "b"]):
        picture(tmp_path / f"{name}.png", np.full((2, 2), value, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("no picture")
    data = load_data(str(tmp_path), num_samples=2)
    assert data.description["files"] == ["a.png", "b.png"]
    assert [round(data.dataset[i].max().item() * 255) for i in range(2)] == [1, 2]


def test_pictures_are_read_when_asked_for(tmp_path):
    picture(tmp_path / "a.bmp")
    picture(tmp_path / "b.bmp")
    data = load_data(str(tmp_path))
    (tmp_path / "b.bmp").unlink()
    assert data.dataset[0].shape == (3, 6, 8)
    with pytest.raises(DataError, match=r"b\.bmp"):
        data.dataset[1]


def test_gray_and_color(tmp_path):
    gray = picture(tmp_path / "gray.png", COLORS[..., 0])
    color = picture(tmp_path / "color.png")
    assert sample(gray).shape == (1, 6, 8)
    in_color = sample(gray, input_shape=(3, 6, 8))
    assert torch.equal(in_color, sample(gray).expand(3, -1, -1))
    luma = np.tensordot(COLORS / 255, [0.299, 0.587, 0.114], axes=1)
    np.testing.assert_allclose(sample(color, input_shape=(1, 6, 8)).numpy()[0], luma, atol=1e-6)


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK", "LA", "1"])
def test_other_modes_give_one_or_three_channels(tmp_path, mode):
    path = tmp_path / "a.tif" if mode == "CMYK" else tmp_path / "a.png"
    Image.fromarray(COLORS).convert(mode).save(path)
    found = sample(path)
    assert found.shape[0] == (1 if mode in ("LA", "1") else 3)
    assert 0 <= found.min() <= found.max() <= 1


def test_short_side_is_scaled_and_the_center_cropped(tmp_path):
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 255
    found = sample(picture(tmp_path / "a.png", wide), input_shape=(1, 10, 10))
    assert found.shape == (1, 10, 10)
    assert torch.equal(found[..., 1:-1], torch.ones(1, 10, 8))  # the black beside bleeds into the border
    assert torch.equal(found, found.flip(2))


def test_scaling_is_antialiased(tmp_path):
    board = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)
    found = sample(picture(tmp_path / "a.png", board), input_shape=(1, 8, 8))
    assert (found - 0.5).abs().max() < 0.02


@pytest.mark.parametrize("shape", [(3, 40, 20), (3, 7, 7), (1, 5, 9)])
def test_any_shape_can_be_had(tmp_path, shape):
    assert sample(picture(tmp_path / "a.png"), input_shape=shape).shape == shape


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (6, 4)], ids=["gray", "color", "alpha"])
def test_png_of_16_bits_keeps_them(tmp_path, color_type, channels):
    pixels = DEEP[..., :channels]
    write_png16(tmp_path / "a.png", pixels, color_type)
    expected = pixels[..., : min(channels, 3)].transpose(2, 0, 1) / 65535
    np.testing.assert_allclose(sample(tmp_path / "a.png").numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"compression": "zlib"}], ids=["plain", "big", "zlib"])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_of_16_bits_keeps_them(tmp_path, options, channels):
    tifffile = pytest.importorskip("tifffile")
    pixels = DEEP[..., :channels]
    photometric = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", pixels.squeeze(), photometric=photometric, **options)
    expected = pixels.transpose(2, 0, 1) / 65535
    np.testing.assert_allclose(sample(tmp_path / "a.tif").numpy(), expected, atol=1e-7)


def test_depths_that_would_be_read_wrong_are_refused(tmp_path):
    write_png16(tmp_path / "alpha.png", DEEP[..., :2], 4)
    refused(tmp_path / "alpha.png", "16-bit")
    Image.fromarray(np.full((4, 4), 7, np.int32)).save(tmp_path / "integers.tif")
    refused(tmp_path / "integers.tif", "32-bit")


def test_planes_of_16_bits_are_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    planes = DEEP[..., :3].transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    refused(tmp_path / "a.tif", "16-bit", "planes")


def test_floating_pictures_have_to_be_in_range(tmp_path):
    half = picture(tmp_path / "half.tif", np.full((4, 4), 0.5, np.float32))
    assert torch.equal(sample(half), torch.full((1, 4, 4), 0.5))
    for value in (2.0, -0.5, np.nan):
        refused(picture(tmp_path / "out.tif", np.full((4, 4), value, np.float32)), "out.tif", "[0, 1]")


def test_different_sizes_need_a_shape(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", COLORS[:4])
    refused(tmp_path, "a.png", "b.png", "--input-shape")
    assert load_data(str(tmp_path), input_shape=(3, 4, 4)).dataset[1].shape == (3, 4, 4)


@pytest.mark.parametrize("shape", [(4, 4, 4), (4, 4), (1, 3, 4, 4), (3, 0, 4)])
def test_shapes_that_are_none_of_a_picture(tmp_path, shape):
    refused(picture(tmp_path / "a.png"), "--input-shape", input_shape=shape)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_truncated_pictures(tmp_path, suffix, part):
    path = picture(tmp_path / f"a.{suffix}", np.random.default_rng(3).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    refused(path, path.name)


def test_text_with_a_picture_name(tmp_path):
    (tmp_path / "a.png").write_text("this is text")
    refused(tmp_path / "a.png", "a.png", "not an image")
