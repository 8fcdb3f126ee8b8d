"""Pictures of validation samples: which, and what is drawn of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset
from training_networks import network, points

from hessrank.distill.training.pictures import answers, chosen_samples, draw_panels


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
