"""Pictures of validation samples: which, and what is drawn of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from helpers.training_networks import network, points
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from hessrank.distill.training.callbacks.pictures import answers, chosen_samples, detail_rows, draw_panels


def test_samples_of_a_data_set_are_spread_over_it() -> None:
    x, y = points(20)
    chosen = chosen_samples((x, y), network(), 3)
    assert [one.samples for one in chosen] == [(0,), (10,), (19,)]
    assert torch.equal(chosen[1].args[0], x[10:11])
    assert torch.equal(chosen[1].target, y[10:11])
    assert len(chosen_samples((x[:2], y[:2]), network(), 3)) == 2
    assert chosen_samples((x, y), network(), 0) == []


def test_of_a_data_loader_the_first_are_taken() -> None:
    x, y = points(20)
    chosen = chosen_samples(DataLoader(TensorDataset(x, y), batch_size=4), network(), 6)
    assert torch.equal(torch.cat([one.args[0] for one in chosen]), x[:6])


def test_answers_are_the_networks() -> None:
    x, y = points(20)
    model = network().eval()
    (found,) = answers(model, chosen_samples((x, y), model, 1), torch.device("cpu"))
    assert torch.equal(found, model(x[:1]))


def test_a_row_a_sample_and_a_column_a_panel(tmp_path: Path) -> None:
    panels = {"input": np.zeros((20, 40)), "target": np.ones((20, 40, 3))}
    draw_panels([panels, panels, {"input": np.zeros((20, 40))}], tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (640, 570)
        pixels = np.asarray(picture.convert("L"))
    assert pixels[80, 160] == 0  # the first row's input is black, its target white
    assert pixels[80, 480] == 255
    assert (pixels[430:, 330:] == 255).all()  # the last row has one panel


def test_a_picture_with_a_target_has_a_crop_and_an_error_map() -> None:
    rng = np.random.default_rng(0)
    target = np.full((40, 64, 3), 0.5)
    target[12:22, 30:40] = rng.uniform(0, 1, (10, 10, 3))
    made = target + 0.1
    crops, errors = detail_rows({"input": target[..., 0], "quantized, 20.0 dB": made, "target": target})
    assert list(crops) == ["input, detail", "quantized, detail", "target, detail"]
    assert list(errors) == ["input, error × 5", "quantized, error × 5", "target, error × 5"]
    np.testing.assert_array_equal(crops["target, detail"], target[12:22, 30:40])
    np.testing.assert_array_equal(crops["quantized, detail"], made[12:22, 30:40])
    np.testing.assert_allclose(errors["quantized, error × 5"], np.full((40, 64), 0.5))
    assert errors["input, error × 5"] is None
    assert errors["target, error × 5"] is None


def test_a_crop_at_the_edge_lies_within_the_picture() -> None:
    for place in ((0, 0), (33, 0), (0, 50), (33, 50)):
        target = np.zeros((40, 60))
        target[place[0] : place[0] + 7, place[1] : place[1] + 10] = np.eye(10)[:7]
        crop = detail_rows({"target": target, "made": target})[0]["target, detail"]
        assert crop is not None
        assert crop.shape == (10, 10)
        assert crop.sum() == 7


def test_pictures_of_another_size_or_without_a_target_have_no_details() -> None:
    assert detail_rows({"label: 3": np.zeros((8, 8))}) == []
    assert detail_rows({"input": np.zeros((4, 4)), "target": np.zeros((8, 8))}) == []


def test_an_empty_place_stays_white(tmp_path: Path) -> None:
    draw_panels(
        [{"a": np.zeros((20, 40)), "b": np.zeros((20, 40))}, {"a": None, "b": np.zeros((20, 40))}], tmp_path / "x.png"
    )
    with Image.open(tmp_path / "x.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels[80, 160] == pixels[270, 480] == 0
    assert (pixels[195:, :310] == 255).all()
