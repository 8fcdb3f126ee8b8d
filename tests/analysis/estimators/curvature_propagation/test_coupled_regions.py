"""Regions of hand-made graphs: what is closed off, what stays coupled."""

import pytest

from hessrank.analysis.estimators.curvature_propagation.coupled_regions import Region, find_regions

# name: (inputs of each layer, curved layers, layers read from outside, what is expected)
ATTENTION = {0: [], 1: [0], 2: [1], 3: [1], 4: [1], 5: [2, 3], 6: [5], 7: [6, 4], 8: [7], 9: [0, 8]}
GATE = {0: [], 1: [0], 2: [1], 3: [1, 2], 4: [3]}
CROSSED = {0: [], 1: [0], 2: [0], 3: [1, 2], 4: [1, 2], 5: [3, 4]}
APART = {0: [], 1: [], 2: [0], 3: [1], 4: [2, 3]}
LEAKING = {0: [], 1: [0], 2: [0], 3: [1, 2], 4: [1], 5: [3, 4]}


def shape(region: Region) -> dict[str, object]:
    return {
        "layers": region.layers,
        "coupled": set(region.coupled),
        "inner": {inner.exit: shape(inner) for inner in region.inner},
    }


def flat(*layers: int, coupled: set[int] | None = None) -> dict[str, object]:
    return {"layers": layers, "coupled": coupled or set(), "inner": {}}


CASES = {
    "attention": (
        ATTENTION, {1, 5, 6, 7}, [9],
        {"layers": (0, 1, 7, 8, 9), "coupled": set(), "inner": {7: flat(2, 3, 4, 5, 6)}},
    ),
    "gate": (GATE, {3}, [4], {"layers": (0, 1, 3, 4), "coupled": set(), "inner": {3: flat(2)}}),
    "two ancestors, closed off by a third": (
        CROSSED, {5}, [5], {"layers": (0, 5), "coupled": set(), "inner": {5: flat(1, 2, 3, 4, coupled={5})}},
    ),
    "nothing in common": (APART, {4}, [4], flat(0, 1, 2, 3, 4)),
    "straight": (ATTENTION, {1, 6}, [9], flat(*range(10))),
    "a way out in the middle": (
        LEAKING, {3}, [5], {"layers": (0, 5), "coupled": set(), "inner": {5: flat(1, 2, 3, 4)}},
    ),
    "a way out past the end": (LEAKING, {3}, [3, 4], flat(0, 1, 2, 3, 4, 5, coupled={3})),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_regions(name: str) -> None:
    inputs, curved, ends, expected = CASES[name]
    assert shape(find_regions(inputs, inputs, curved, ends)) == expected


def test_layers_before_the_part_are_left_out_of_account() -> None:
    """Without the norm that q, k and v come from, nothing couples them."""
    part = range(2, 10)
    assert shape(find_regions(part, ATTENTION, {5, 6, 7}, [9])) == flat(*part)


def test_depths_are_counted_from_the_whole() -> None:
    inputs, curved, ends, _ = CASES["attention"]
    assert [(depth, one.exit) for depth, one in find_regions(inputs, inputs, curved, ends).nested()] == [
        (0, None),
        (1, 7),
    ]
