"""Frames cut to size."""

from __future__ import annotations

import torch

from hessrank.data.crop import center_crop, scale_and_crop


def test_the_middle_is_kept() -> None:
    frame = torch.arange(20).reshape(1, 4, 5)
    assert center_crop(frame, 2, 3).tolist() == [[[6, 7, 8], [11, 12, 13]]]
    assert torch.equal(center_crop(frame, 4, 5), frame)


def test_a_step_of_two_keeps_the_phase_of_a_mosaic() -> None:
    frame = torch.arange(36).reshape(6, 6)
    assert center_crop(frame, 4, 4)[0, 0].item() == 7
    assert center_crop(frame, 4, 4, step=2)[0, 0].item() == 0


def test_an_image_is_scaled_to_cover() -> None:
    image = torch.rand(3, 8, 16)
    for height, width in ((4, 4), (16, 16), (8, 2)):
        found = scale_and_crop(image, height, width)
        assert found.shape == (3, height, width)
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert torch.equal(scale_and_crop(image, 8, 8), image[..., 4:12])
