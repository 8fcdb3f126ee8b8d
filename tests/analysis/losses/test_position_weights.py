"""What part a position has in its sample's loss."""

from __future__ import annotations

import math

import torch

from hessrank.analysis.losses.position_weights import divergence, element_weights, position_weights, softmax_factor

REAL = torch.tensor([[True, True, False], [True, False, False]])


def test_without_padding_all_elements_have_the_same_part() -> None:
    assert element_weights(torch.zeros(2, 4, 4), None).item() == 1 / 16
    assert position_weights(torch.zeros(2, 4), None).item() == 1
    assert position_weights(torch.zeros(2, 4, 8, 8), None).item() == 1 / 64
    assert position_weights(torch.zeros(2, 8, 4), None).item() == 1 / 8  # B×T×C: the classes are last


def test_padding_has_no_part() -> None:
    halves = [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]
    assert position_weights(torch.zeros(2, 3, 4), REAL).tolist() == halves
    parts = element_weights(torch.zeros(2, 3, 4), REAL)
    assert parts.shape == (2, 3, 1)
    assert (parts[..., 0] * 4).tolist() == halves


def test_the_divergence_is_that_of_two_distributions() -> None:
    z, t = torch.tensor([[1.0, 3.0]]).log(), torch.zeros(1, 2)
    assert math.isclose(divergence(z, t, None).item(), math.log(4 / 3) / 2, rel_tol=1e-6)
    assert divergence(t, t, None).item() == 0


def test_the_factor_squared_is_the_hessian_of_the_divergence() -> None:
    z = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    columns = [softmax_factor(z, w[None], position_weights(z, None))[0] for w in torch.eye(3, dtype=torch.float64)]
    factor = torch.stack(columns, 1)
    p = z.softmax(1)[0]
    torch.testing.assert_close(factor @ factor.T, p.diag() - p.outer(p))
