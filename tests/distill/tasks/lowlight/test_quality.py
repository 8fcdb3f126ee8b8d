"""PSNR and SSIM as torchmetrics: equal to scikit-image's, averaged over pictures, in one process and in two."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from hessrank.distill.tasks.lowlight import psnr_8bit, ssim_8bit
from hessrank.distill.tasks.lowlight.metrics import picture_metrics
from hessrank.errors import DataError


def batch(seed, size=3):
    """Outputs that leave [0, 1] here and there, and targets."""
    draw = torch.Generator().manual_seed(seed)
    target = tuple(torch.rand(size, channels, 20, 24, generator=draw) for channels in (1, 3))
    output = tuple(truth + 0.2 * torch.randn(truth.shape, generator=draw) for truth in target)
    return output, target


def rounded(picture):
    return np.floor(np.clip(picture.double().numpy(), 0, 1) * 255 + 0.5).astype(np.uint8)


def references(batches):
    found = {name: [] for name in ("psnr_mono", "psnr_rgb", "ssim_mono", "ssim_rgb")}
    for output, target in batches:
        for what, pictures, truths in zip(("mono", "rgb"), output, target, strict=True):
            for a, b in zip(map(rounded, truths), map(rounded, pictures), strict=True):
                found[f"psnr_{what}"].append(peak_signal_noise_ratio(a, b))
                found[f"ssim_{what}"].append(structural_similarity(a, b, channel_axis=0))
    return {name: float(np.mean(values)) for name, values in found.items()}


def computed(metrics):
    return {name: float(metric.compute()) for name, metric in metrics.items()}


def test_means_are_those_of_scikit_image():
    batches = [batch(0), batch(1, size=1), batch(2, size=2)]
    metrics = picture_metrics()
    for output, target in batches:
        for metric in metrics.values():
            metric.update(output, target)
    assert computed(metrics) == pytest.approx(references(batches), rel=1e-12)
    assert len(set(computed(metrics).values())) == 4


def test_values_of_one_batch_and_after_a_reset():
    output, target = batch(3)
    metrics = picture_metrics()
    single = {name: float(metric(output, target)) for name, metric in metrics.items()}
    assert single == pytest.approx(references([(output, target)]), rel=1e-12)
    for metric in metrics.values():
        metric.reset()
        metric.update(*batch(4))
    assert computed(metrics) == pytest.approx(references([batch(4)]), rel=1e-12)


def test_sums_of_two_processes_add_up():
    halves = [picture_metrics()["ssim_rgb"] for _ in range(2)]
    whole = picture_metrics()["ssim_rgb"]
    for metric, seed in zip(halves, (5, 6), strict=True):
        metric.update(*batch(seed, size=1 + seed % 2))
        whole.update(*batch(seed, size=1 + seed % 2))
    total, count = (sum(getattr(metric, name) for metric in halves) for name in ("total", "count"))
    assert float(whole.compute()) == pytest.approx(float(total / count), rel=1e-12)
    assert whole._reductions["total"] is whole._reductions["count"]
    assert float(whole._reductions["total"](torch.tensor([1.0, 2.0]))) == 3.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_any_floating_type(dtype):
    output, target = batch(7, size=1)
    output = tuple(picture.to(dtype) for picture in output)
    metrics = picture_metrics()
    for metric in metrics.values():
        metric.update(output, target)
    assert computed(metrics) == pytest.approx(references([(output, target)]), rel=1e-12)


def test_equal_pictures():
    _, target = batch(0)
    metrics = picture_metrics()
    for metric in metrics.values():
        metric.update(target, target)
    assert computed(metrics) == {"psnr_mono": math.inf, "psnr_rgb": math.inf, "ssim_mono": 1.0, "ssim_rgb": 1.0}


def test_nan_stays_nan():
    output, target = batch(0)
    output[1][0, 0, 0, 0] = math.nan
    metrics = picture_metrics()
    for metric in metrics.values():
        metric.update(output, target)
    assert {name for name, value in computed(metrics).items() if math.isnan(value)} == {"psnr_rgb", "ssim_rgb"}


def test_metrics_are_new_each_time():
    first = picture_metrics()
    first["psnr_rgb"].update(*batch(0))
    assert int(picture_metrics()["psnr_rgb"].count) == 0


def test_directions():
    assert all(metric.higher_is_better for metric in picture_metrics().values())


@pytest.mark.parametrize("shape", [(3, 6, 20), (3, 20, 6)])
def test_picture_smaller_than_the_window(shape):
    with pytest.raises(DataError, match=rf"{shape[1]}×{shape[2]} pixels is smaller than SSIM's window, 7×7"):
        ssim_8bit(torch.zeros(shape), torch.zeros(shape))
    assert ssim_8bit(torch.zeros(3, 7, 7), torch.zeros(3, 7, 7)) == 1.0


@pytest.mark.parametrize("figure", [psnr_8bit, ssim_8bit])
def test_shapes_that_differ(figure):
    with pytest.raises(DataError, match=r"shapes \(1, 8, 8\) and \(3, 8, 8\) do not compare"):
        figure(torch.zeros(1, 8, 8), torch.zeros(3, 8, 8))
