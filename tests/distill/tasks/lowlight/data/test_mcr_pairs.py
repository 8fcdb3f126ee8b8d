"""The MCR data set: as published, and as the sensors' bytes; the real scene where it is at hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.places import SHARED
from PIL import Image

from hessrank.distill.tasks.lowlight import (
    TrainingSquares,
    WholeFrames,
    demosaic_bilinear,
    develop_gray_world,
    mcr_pairs,
    mosaic,
)
from hessrank.distill.tasks.lowlight.data.mcr_folders import MCR_LAYOUT, MCR_NAME, is_mcr
from hessrank.errors import DataError

REAL = SHARED / "mcr"
NEEDS_REAL = pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not there")
SHAPE = (64, 128)


def values(scene, what, shape=SHAPE):
    return np.random.default_rng([scene, what]).integers(1, 200, shape, dtype=np.uint8)


def make_published(folder, scenes=range(1, 12), shutters=("00ff", "1fff", "2fff")):
    """The published layout with small frames; scenes from 500 on have the shutters of daylight."""
    for name in ("Color_RAW_Input", "Mono_GT", "RGB_GT"):
        (folder / name).mkdir(parents=True)
    for scene in scenes:
        used, longest = (shutters, "2fff") if scene < 500 else (("001f", "03ff"), "03ff")
        for number, shutter in enumerate(used):
            path = folder / "Color_RAW_Input" / f"C{scene:05d}_48mp_0x8_0x{shutter}.tif"
            Image.fromarray(values(scene, number)).save(path)
        Image.fromarray(values(scene, 10)).save(folder / "Mono_GT" / f"M_Align_{scene:05d}_48mp_0x8_0x{longest}.tif")
        picture = Image.fromarray(values(scene, 11, (*SHAPE, 3)))
        picture.save(folder / "RGB_GT" / f"C{scene:05d}_48mp_0x8_0x{longest}.jpg")
    return folder


def write_list(folder, split, names):
    path = folder / "random_path_list" / split / f"{split}_c_path.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array([f"./{MCR_NAME}/Color_RAW_Input/{name}.tif" for name in names]))
    return path


def refused(root, **options):
    with pytest.raises(DataError) as caught:
        mcr_pairs(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def stems(pairs):
    return [pair.dark.stem for pair in pairs]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_published(tmp_path_factory.mktemp("mcr") / MCR_NAME)


class TestPublished:
    @pytest.mark.parametrize("parent", [False, True])
    def test_last_tenth_of_the_scenes_is_for_validation(self, published, parent):
        training, validation, note = mcr_pairs(published.parent if parent else published)
        assert {pair.scene for pair in training} == set(range(1, 11))
        assert stems(validation) == [f"C00011_48mp_0x8_0x{shutter}" for shutter in ("00ff", "1fff", "2fff")]
        assert len(training) == 30
        assert note == "validation: the last 1 of 11 scenes"

    def test_frames_and_targets_are_the_files(self, published):
        _, validation, _ = mcr_pairs(published)
        data = WholeFrames(validation)
        rgb_file = np.asarray(Image.open(published / "RGB_GT" / "C00011_48mp_0x8_0x2fff.jpg"))
        for number, gain in enumerate((0x2FFF / 0xFF, 0x2FFF / 0x1FFF, 1)):
            raw, (mono, rgb) = data[number]
            np.testing.assert_allclose(raw[0], np.minimum(values(11, number) / 255 * gain, 1), rtol=1e-6)
            np.testing.assert_allclose(mono[0], values(11, 10) / 255, rtol=1e-6)
            np.testing.assert_allclose(rgb, rgb_file.transpose(2, 0, 1) / 255, rtol=1e-6)
        assert (data[0][0] == 1).any()

    def test_scenes_by_day_have_another_longest_shutter(self, tmp_path):
        make_published(tmp_path, scenes=(499, 500, 501))
        _, validation, _ = mcr_pairs(tmp_path)
        assert [(pair.dark.name, pair.gain) for pair in validation] == [
            ("C00501_48mp_0x8_0x001f.tif", 0x3FF / 0x1F),
            ("C00501_48mp_0x8_0x03ff.tif", 1.0),
        ]

    def test_of_several_truths_the_longest_shutter_is_taken(self, tmp_path):
        make_published(tmp_path, scenes=(1, 2))
        Image.fromarray(values(1, 99)).save(tmp_path / "Mono_GT" / "M_Align_00001_48mp_0x8_0x0fff.tif")
        training, _, _ = mcr_pairs(tmp_path)
        assert {pair.mono.name for pair in training} == {"M_Align_00001_48mp_0x8_0x2fff.tif"}

    @pytest.mark.parametrize("beside", [False, True])
    def test_published_lists_are_followed_in_their_order(self, tmp_path, beside):
        folder = make_published(tmp_path / MCR_NAME, scenes=(1, 2, 3))
        place = tmp_path if beside else folder
        names = ["C00003_48mp_0x8_0x1fff", "C00001_48mp_0x8_0x00ff"]
        write_list(place, "train", names)
        write_list(place, "test", ["C00003_48mp_0x8_0x00ff"])
        training, validation, note = mcr_pairs(tmp_path)
        assert stems(training) == names
        assert stems(validation) == ["C00003_48mp_0x8_0x00ff"]
        assert note == (
            f"training and validation as {place / 'random_path_list'} says; 1 scenes are in both, with other shutters"
        )

    def test_without_a_test_list_the_rest_is_for_validation(self, tmp_path):
        make_published(tmp_path, scenes=(1, 2), shutters=("00ff", "2fff"))
        write_list(tmp_path, "train", ["C00001_48mp_0x8_0x00ff", "C00001_48mp_0x8_0x2fff"])
        training, validation, note = mcr_pairs(tmp_path)
        assert len(training) == 2
        assert stems(validation) == ["C00002_48mp_0x8_0x00ff", "C00002_48mp_0x8_0x2fff"]
        assert note.endswith("says")

    def test_list_that_names_what_is_not_there(self, tmp_path):
        make_published(tmp_path, scenes=(1,))
        path = write_list(tmp_path, "train", ["C00001_48mp_0x8_0x00ff", "C00009_48mp_0x8_0x00ff"])
        message = f"{path}: entry 1 names 'C00009_48mp_0x8_0x00ff.tif', which is not in Color_RAW_Input"
        assert refused(tmp_path) == message

    @pytest.mark.parametrize("damage", [b"", b"no list", "objects"])
    def test_list_that_numpy_does_not_read(self, tmp_path, damage):
        make_published(tmp_path, scenes=(1,))
        path = write_list(tmp_path, "train", [])
        if damage == "objects":
            np.save(path, np.array([print], dtype=object))  # unpickling it would run code
        else:
            path.write_bytes(damage)
        assert refused(tmp_path).startswith(f"{path}: this is no list of paths that numpy reads: ")

    def test_list_that_takes_all(self, tmp_path):
        make_published(tmp_path, scenes=(1,), shutters=("00ff",))
        write_list(tmp_path, "train", ["C00001_48mp_0x8_0x00ff"])
        assert refused(tmp_path).endswith("the list leaves no pair for validation")

    @pytest.mark.parametrize(("folder", "camera"), [("Mono_GT", "monochrome"), ("RGB_GT", "color")])
    def test_scene_without_a_target(self, tmp_path, folder, camera):
        make_published(tmp_path, scenes=(1, 2))
        next((tmp_path / folder).glob("*00002*")).unlink()
        assert refused(tmp_path) == (
            f"{tmp_path}/Color_RAW_Input/C00002_48mp_0x8_0x00ff.tif: there is no {camera} picture of scene 2 "
            "with its longest shutter"
        )

    def test_missing_and_empty_folders_show_the_layout(self, tmp_path):
        (tmp_path / "Color_RAW_Input").mkdir()
        assert refused(tmp_path) == f"{tmp_path}/RGB_GT: there is no such folder; MCR has {MCR_LAYOUT}"
        (tmp_path / "RGB_GT").mkdir()
        assert refused(tmp_path) == f"{tmp_path}/RGB_GT: there is no image in it; MCR has {MCR_LAYOUT}"

    def test_input_whose_name_says_nothing(self, tmp_path):
        make_published(tmp_path, scenes=(1,))
        (tmp_path / "Color_RAW_Input" / "C00001_48mp_0x8_0x2fff.tif").rename(tmp_path / "Color_RAW_Input" / "x.tif")
        assert "Color_RAW_Input/x.tif: the name says no scene and shutter" in refused(tmp_path)

    @pytest.mark.parametrize(
        ("file", "picture", "words"),
        [
            ("Color_RAW_Input/C00002_48mp_0x8_0x00ff.tif", (*SHAPE, 3), "it has colors"),
            ("Mono_GT/M_Align_00002_48mp_0x8_0x2fff.tif", (*SHAPE, 3), "it has colors"),
            ("RGB_GT/C00002_48mp_0x8_0x2fff.jpg", SHAPE, "it has no colors"),
            ("RGB_GT/C00002_48mp_0x8_0x2fff.jpg", (32, 128, 3), "64×128 pixels, but"),
            ("Color_RAW_Input/C00002_48mp_0x8_0x00ff.tif", (96, 128), "96×128 pixels, but its target"),
        ],
    )
    def test_pictures_of_another_kind_or_size(self, tmp_path, file, picture, words):
        make_published(tmp_path, scenes=(1, 2))
        Image.fromarray(values(2, 0, picture)).save(tmp_path / file)
        _, validation, _ = mcr_pairs(tmp_path)
        with pytest.raises(DataError, match=words):
            WholeFrames(validation)[0]

    def test_other_phase_of_the_mosaic(self, published):
        plain, cut = (mcr_pairs(published, pattern=pattern)[1][0] for pattern in ("RGGB", "GBRG"))
        assert (plain.shape, cut.shape) == ((64, 128), (63, 128))
        np.testing.assert_array_equal(cut.raw(), plain.raw()[:, 1:])
        np.testing.assert_array_equal(cut.target(), plain.target()[:, 1:])

    def test_mosaic_that_it_has_not(self, published):
        assert refused(published, pattern="RYYB").endswith(
            "the mosaic of MCR is RGGB, which has no phase RYYB; leave pattern out"
        )


class TestOneScene:
    def test_right_quarter_is_for_validation(self, tmp_path):
        make_published(tmp_path, scenes=(7,))
        training, validation, note = mcr_pairs(tmp_path)
        assert stems(training) == stems(validation)
        assert len(training) == 3
        assert (training[0].shape, validation[0].shape) == ((64, 96), (64, 32))
        whole = np.minimum(values(7, 0) / 255 * 0x2FFF / 0xFF, 1)
        np.testing.assert_allclose(training[0].raw()[0], whole[:, :96], rtol=1e-6)
        np.testing.assert_allclose(validation[0].raw()[0], whole[:, 96:], rtol=1e-6)
        np.testing.assert_allclose(validation[0].target()[0], values(7, 10)[:, 96:] / 255, rtol=1e-6)
        assert note == "validation: columns 96 and on of the only scene; training: those before"

    def test_phase_and_columns_together(self, tmp_path):
        make_published(tmp_path, scenes=(7,))
        plain, cut = (mcr_pairs(tmp_path, pattern=pattern) for pattern in ("RGGB", "BGGR"))
        np.testing.assert_array_equal(cut[0][0].raw(), plain[0][0].raw()[:, 1:, 1:])
        np.testing.assert_array_equal(cut[1][0].raw(), plain[1][0].raw()[:, 1:, 1:])


class TestDevelopment:
    def test_gray_stays_gray_and_gets_a_gamma(self):
        gray = np.broadcast_to(np.linspace(0.1, 0.4, 16), (3, 8, 16))
        tinted = gray * np.array([0.5, 1.0, 0.8]).reshape(3, 1, 1)
        developed = develop_gray_world(mosaic(tinted))
        np.testing.assert_allclose(developed[:, 2:-2, 2:-2], gray[:, 2:-2, 2:-2] ** (1 / 2.2), rtol=5e-3)

    def test_it_is_what_it_says(self):
        seen = np.random.default_rng(0).uniform(size=(1, 8, 8))
        rgb = demosaic_bilinear(seen)
        balanced = np.stack([plane * rgb[1].mean() / plane.mean() for plane in rgb])
        np.testing.assert_allclose(develop_gray_world(seen), np.minimum(balanced, 1) ** (1 / 2.2), rtol=1e-12)
        assert np.all(develop_gray_world(np.zeros((1, 4, 4))) == 0)


def make_raw(folder, scene, shutters, cameras="CM"):
    for camera in cameras:
        for number, shutter in enumerate(shutters):
            path = folder / f"{camera}{scene:05d}_48mp_0x8_0x{shutter}.raw"
            values(scene, number + 50 * (camera == "M"), (1024, 1280)).tofile(path)


class TestRawFiles:
    def test_inputs_are_shorter_than_the_longest_shutter(self, tmp_path):
        make_raw(tmp_path, 3, ("00ff", "2fff"))
        make_raw(tmp_path, 600, ("000f", "03ff"))
        training, validation, _ = mcr_pairs(tmp_path)
        assert stems(training) == ["C00003_48mp_0x8_0x00ff"]
        assert stems(validation) == ["C00600_48mp_0x8_0x000f"]
        (pair,) = validation
        assert pair.gain == 0x3FF / 0xF
        raw, (mono, rgb) = WholeFrames(validation)[0]
        np.testing.assert_allclose(raw[0], np.minimum(values(600, 0, (1024, 1280)) / 255 * pair.gain, 1), rtol=1e-6)
        np.testing.assert_allclose(mono[0], values(600, 51, (1024, 1280)) / 255, rtol=1e-6)
        developed = develop_gray_world(values(600, 1, (1, 1024, 1280)) / 255)
        np.testing.assert_allclose(rgb, developed, atol=1e-6)

    @pytest.mark.parametrize(("cameras", "missing"), [("C", "monochrome"), ("M", None)])
    def test_scene_without_a_target_or_an_input(self, tmp_path, cameras, missing):
        make_raw(tmp_path, 3, ("00ff", "2fff"), cameras)
        words = (
            f"no {missing} picture of scene 3"
            if missing
            else f"no frame of the color camera with a short shutter; MCR has {MCR_LAYOUT}"
        )
        assert words in refused(tmp_path)

    @pytest.mark.parametrize("camera", ["C", "M"])
    @pytest.mark.parametrize("shutter", ["00ff", "2fff"])
    def test_file_that_is_cut_short(self, tmp_path, camera, shutter):
        make_raw(tmp_path, 3, ("00ff", "2fff"))
        path = tmp_path / f"{camera}00003_48mp_0x8_0x{shutter}.raw"
        path.write_bytes(b"1234")
        data = WholeFrames(mcr_pairs(tmp_path)[1])
        if (camera, shutter) == ("M", "00ff"):  # which nobody reads
            assert len(data[0]) == 2
        else:
            with pytest.raises(DataError, match=f"{path.name}: 4 bytes, but an MCR frame has 1024×1280"):
                data[0]


def test_which_folder_is_mcr(tmp_path, published):
    assert is_mcr(published)
    assert is_mcr(published.parent)
    assert not is_mcr(tmp_path)
    (tmp_path / "x.raw").touch()
    assert not is_mcr(tmp_path)
    (tmp_path / "C00003_48mp_0x8_0x00ff.raw").touch()
    assert is_mcr(tmp_path)
    assert not is_mcr(tmp_path / "nowhere")


@NEEDS_REAL
class TestRealScene:
    def test_pairs(self):
        training, validation, _ = mcr_pairs(REAL)
        assert [pair.gain for pair in training] == pytest.approx([12287 / 255, 12287 / 1023, 12287 / 4095])
        assert {pair.reference.name for pair in training} == {"C00400_48mp_0x8_0x2fff.raw"}
        assert {pair.mono.name for pair in training} == {"M00400_48mp_0x8_0x2fff.raw"}
        assert (training[0].shape, validation[0].shape) == ((1024, 960), (1024, 320))

    def test_input_is_the_amplified_bytes(self):
        pair = mcr_pairs(REAL)[1][0]
        counts = np.fromfile(pair.dark, np.uint8).reshape(1024, 1280)[:, 960:]
        np.testing.assert_allclose(pair.raw()[0], np.minimum(counts / 255 * 12287 / 255, 1), rtol=1e-6)

    def test_targets_look_like_the_input(self):
        data = TrainingSquares(mcr_pairs(REAL)[0], size=512, seed=0)
        for index in range(3):
            raw, (mono, rgb) = data[index]
            assert (raw.shape, mono.shape, rgb.shape) == ((1, 512, 512), (1, 512, 512), (3, 512, 512))
            scene = [torch.nn.functional.avg_pool2d(x.mean(0, keepdim=True), 16).flatten() for x in (raw, mono, rgb)]
            correlations = torch.corrcoef(torch.stack(scene))
            assert correlations[0, 2] > 0.8
            assert correlations[1, 2] > 0.5  # the cameras stand beside each other
            assert abs(rgb.mean((1, 2)) - rgb.mean()).max() < 0.1  # no tint
