"""Projections: how they start, what they map, and shapes that no map of channels makes equal."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hessrank.distill.teacher.projections import make_projection
from hessrank.errors import LossError

PLACES = [(), (5,), (4, 3), (2, 4, 3)]
KINDS = [nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d]
IDS = [kind.__name__ for kind in KINDS]


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("place", "kind"), list(zip(PLACES, KINDS, strict=True)), ids=IDS)
@pytest.mark.parametrize(("student", "teacher"), [(3, 5), (5, 3), (1, 4)], ids=["wider", "narrower", "from one"])
def test_starts_as_partial_identity(place, kind, student, teacher):
    projection = make_projection((2, student, *place), (2, teacher, *place))
    assert isinstance(projection, kind)
    x = drawn(2, student, *place)
    common = min(student, teacher)
    expected = torch.zeros(2, teacher, *place)
    expected[:, :common] = x[:, :common]
    torch.testing.assert_close(projection(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("place", PLACES, ids=IDS)
def test_is_one_linear_map_for_all_positions(place):
    projection = make_projection((2, 3, *place), (2, 4, *place))
    assert [name for name, _ in projection.named_parameters()] == ["weight"]
    with torch.no_grad():
        projection.weight.copy_(drawn(*projection.weight.shape, seed=1))
    x = drawn(2, 3, *place, seed=2)
    expected = torch.einsum("tc,bc...->bt...", projection.weight.reshape(4, 3), x)
    torch.testing.assert_close(projection(x), expected)


@pytest.mark.parametrize("place", PLACES, ids=IDS)
def test_equal_channels_need_none(place):
    assert make_projection((2, 3, *place), torch.Size((2, 3, *place))) is None


def test_takes_nothing_from_the_global_generator():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    make_projection((1, 3, 2, 2), (1, 4, 2, 2))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((2, 3, 4, 4), (2, 3, 4, 5)),
        ((2, 3, 4, 4), (2, 6, 8, 8)),
        ((2, 3), (4, 5)),
        ((2, 3, 4), (2, 5)),
        ((2,), (3,)),
        ((2,), (2,)),
        ((1, 2, 1, 1, 1, 1), (1, 3, 1, 1, 1, 1)),
    ],
    ids=["width", "size and channels", "batch", "dimensions", "no channels", "no channels, equal", "too many"],
)
def test_shapes_that_no_projection_makes_equal(student, teacher):
    with pytest.raises(LossError) as caught:
        make_projection(student, teacher)
    for shape in (student, teacher):
        assert "×".join(map(str, shape)) in str(caught.value)
    assert "\n" not in str(caught.value)
