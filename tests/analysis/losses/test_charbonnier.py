"""The smooth L1."""

from __future__ import annotations

import torch

from hessrank.analysis.losses.base import curvature_times
from hessrank.analysis.losses.charbonnier import Charbonnier

Z, T = torch.tensor([[0.0, 3.0, 1e-3]], dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)


def test_it_is_epsilon_at_the_target_and_nearly_l1_beyond() -> None:
    roots = (Z.square() + 1e-6).sqrt()
    torch.testing.assert_close(Charbonnier().per_sample(Z, T), roots.mean(1))


def test_the_curvature_is_diagonal_and_the_factor_its_root() -> None:
    diagonal = 1e-6 * (Z.square() + 1e-6) ** -1.5 / 3
    for w in torch.eye(3, dtype=torch.float64).split(1):
        torch.testing.assert_close(Charbonnier().factor(Z, T, [w])[0], w * diagonal.sqrt())
        torch.testing.assert_close(curvature_times(Charbonnier(), Z, T, [w])[0], w * diagonal)
