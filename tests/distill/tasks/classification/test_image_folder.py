"""Folders of pictures sorted by class: what is read, how it is scaled, and layouts that are wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from hessrank.distill.tasks.classification import load_image_folder
from hessrank.errors import DataError, OptionError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def paint(path, color=RED, size=(12, 10), mode="RGB"):
    """Save a picture of one color, ``size`` wide and high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    """Two classes, two pictures each to learn from and one each held out, all 10×12."""
    folder = tmp_path / "flowers"
    for kind, color in {"rose": RED, "daisy": GREEN}.items():
        for name in ("b.png", "a.png"):
            paint(folder / "train" / kind / name, color)
        paint(folder / "val" / kind / "c.png", color)
    return folder


def refused(root, *words, error=DataError, **options):
    with pytest.raises(error) as caught:
        load_image_folder(root, **options)
    for word in words:
        assert str(word) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_classes_by_name_and_their_pictures(root):
    found = load_image_folder(root)
    assert found.classes == ("daisy", "rose")
    assert found.training.labels.tolist() == [0, 0, 1, 1]
    assert found.validation.labels.tolist() == [0, 1]
    assert found.training.labels.dtype == torch.int64
    for data in (found.training, found.validation):
        for picture, label in (data[i] for i in range(len(data))):
            assert (picture.shape, picture.dtype) == (found.shape, torch.float32)
            torch.testing.assert_close(picture[:, 4, 4], torch.tensor(((0.0, 1.0, 0.0), (1.0, 0.0, 0.0))[label]))
    assert found.shape == (3, 10, 12)
    assert found.notes == ("2 classes (daisy, rose): 4 pictures to learn from, 2 held out, as 3×10×12",)


def test_pictures_of_a_class_by_name(root):
    paint(root / "train" / "rose" / "a.png", BLUE)
    assert [found[0][2, 0, 0].item() for found in map(load_image_folder(root).training.__getitem__, (2, 3))] == [1, 0]


@pytest.mark.parametrize("name", ["validation", "test"])
def test_other_names_of_the_held_out_folder(root, name):
    (root / "val").rename(root / name)
    assert len(load_image_folder(root).validation) == 2


def test_val_goes_before_test(root):
    paint(root / "test" / "rose" / "d.png")
    assert len(load_image_folder(root).validation) == 2


def test_hidden_files_and_other_files_are_passed_over(root):
    paint(root / "train" / ".cache" / "x.png")
    (root / "train" / "LICENSE").write_text("")
    (root / "train" / "rose" / "notes.txt").write_text("")
    (root / "train" / "rose" / ".DS_Store").write_text("")
    found = load_image_folder(root)
    assert (found.classes, len(found.training)) == (("daisy", "rose"), 4)


def test_scaled_to_the_short_side_and_center_cropped(root):
    # 40 wide, 20 high: the left quarter red, the middle green, the right quarter blue
    stripes = np.zeros((20, 40, 3), np.uint8)
    for start, stop, color in ((0, 10, RED), (10, 30, GREEN), (30, 40, BLUE)):
        stripes[:, start:stop] = color
    Image.fromarray(stripes).save(root / "val" / "rose" / "c.png")
    picture, _ = load_image_folder(root, size=10).validation[1]
    assert picture.shape == (3, 10, 10)
    torch.testing.assert_close(picture[1, :, 1:-1], torch.ones(10, 8))
    assert picture[0].max() < 0.3
    assert picture[2].max() < 0.3


@pytest.mark.parametrize(
    ("mode", "color", "channels", "expected"),
    [
        ("L", 51, 3, (0.2, 0.2, 0.2)),
        ("L", 51, 1, (0.2,)),
        ("RGBA", (255, 51, 0, 7), 3, (1, 0.2, 0)),
        ("RGB", GREEN, 1, (0.587,)),
        ("L", 51, None, (0.2, 0.2, 0.2)),  # there are others with color
    ],
    ids=["gray as RGB", "gray", "transparent", "color as gray", "gray among color"],
)
def test_channels(root, mode, color, channels, expected):
    paint(root / "val" / "rose" / "c.png", color, mode=mode)
    picture, _ = load_image_folder(root, channels=channels).validation[1]
    torch.testing.assert_close(picture[:, 3, 3], torch.tensor(expected, dtype=torch.float32))


def test_gray_pictures_stay_gray(root):
    for path in root.glob("*/*/*.png"):
        paint(path, 9, mode="L")
    assert load_image_folder(root).shape == (1, 10, 12)


def test_class_that_nothing_is_held_out_of(root):
    paint(root / "train" / "tulip" / "a.png")
    assert load_image_folder(root).notes[-1] == "no picture is held out of tulip"


def test_layouts_that_are_wrong(root, tmp_path):
    layout = "lay pictures out as"
    refused(tmp_path / "nothing", layout, tmp_path / "nothing" / "train" / "CLASS", "no such folder")
    refused(tmp_path, layout, "'train'")
    refused(paint(tmp_path / "one.png"), layout, "file")
    paint(tmp_path / "flat" / "train" / "a.png")
    paint(tmp_path / "flat" / "val" / "rose" / "a.png")
    refused(tmp_path / "flat", layout, f"no folders in {tmp_path / 'flat' / 'train'}")
    (root / "val").rename(root / "evaluation")
    refused(root, layout, "'val', 'validation', 'test'")


def test_one_class_only(root):
    for part in ("train", "val"):
        (root / part / "rose").rename(root / f"{part}-rose")
    refused(root, "one class only", "'daisy'")


def test_class_that_training_lacks(root):
    (root / "val" / "rose").rename(root / "val" / "rosé")
    refused(root, root / "val" / "rosé", root / "train", "nearest is 'rose'")


def test_empty_class(root):
    (root / "train" / "tulip").mkdir()
    refused(root, root / "train" / "tulip", "empty", "remove it")


def test_class_of_other_files(root):
    (root / "train" / "tulip").mkdir()
    (root / "train" / "tulip" / "a.arw").write_bytes(b"")
    refused(root, root / "train" / "tulip", "camera RAW files", ".png")


@pytest.mark.parametrize("content", [b"", b"no picture"], ids=["empty", "text"])
def test_broken_picture(root, content):
    path = root / "val" / "daisy" / "c.png"
    path.write_bytes(content)
    refused(root, path)


def test_picture_cut_short(root):
    path = root / "train" / "daisy" / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (10, 12, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"a\.png: the image is cut short or damaged"):
        load_image_folder(root).training[0]


def test_pictures_that_differ_in_size(root):
    odd = paint(root / "val" / "rose" / "c.png", size=(14, 10))
    refused(root, root / "train" / "daisy" / "a.png", "10×12", odd, "10×14", "task_args: {size: 224}")
    assert load_image_folder(root, size=6).shape == (3, 6, 6)


@pytest.mark.parametrize("options", [{"size": 0}, {"size": "8"}, {"channels": 4}, {"channels": 0}], ids=str)
def test_options_that_make_no_picture(root, options):
    (name, value) = next(iter(options.items()))
    refused(root, f"{name}: {value}", error=OptionError, **options)
