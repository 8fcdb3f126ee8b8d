"""The ends of every sub-network, as far inward as the predicted increase stays high."""

from __future__ import annotations

import pytest
from helpers.hand_graphs import TWO_STAGES, ranking_of

from hessrank.errors import OptionError
from hessrank.quant.bit_choice.strategies import Problem
from hessrank.quant.bit_choice.strategies.sensitive_ends import sensitive_ends

FLAT = dict.fromkeys(TWO_STAGES.nodes, 1e-9)


def chosen(increases: dict[str, float], **options: float) -> set[str]:
    """Return the layers of the kernels that get more bits."""
    return set(sensitive_ends(Problem.of(ranking_of(TWO_STAGES, increases)), **options).why)  # type: ignore[arg-type]


def test_the_ends_themselves_and_the_input_always_get_more() -> None:
    peaked = {"A.act": 1.0, "A.last": 1.0, "B.left": 1.0, "B.right": 1.0, "B.last": 1.0}
    assert chosen(FLAT | peaked) == {"raw", "A.first", "A.act", "A.last", "B.left", "B.right", "B.last"}


def test_one_goes_inward_while_the_increase_stays_high() -> None:
    """A.mid has 0.3 of its end: above a falloff of a quarter, below one of a half. B.mid has a tenth."""
    increases = FLAT | {"A.act": 1.0, "A.act_dup1": 0.3, "A.last": 1.0, "B.left": 1.0, "B.right": 1.0}
    increases |= {"B.act": 0.1, "B.last": 1.0}
    assert {"A.mid", "A.act_dup1"} <= chosen(increases)
    assert not {"A.mid", "A.act_dup1"} & chosen(increases, falloff=0.5)
    assert "B.mid" not in chosen(increases)


def test_a_drop_on_the_way_is_measured_against_the_largest_so_far() -> None:
    """From the end 0.1 → 1 (more) → 0.2 (less than a quarter of 1): the third kernel is left out."""
    increases = FLAT | {"A.act": 0.1, "A.act_dup1": 1.0, "A.last": 0.2}
    assert {"A.mid", "A.act_dup1"} <= chosen(increases)


def test_the_walk_stays_inside_its_sub_network() -> None:
    increases = FLAT | dict.fromkeys(("A.act", "A.act_dup1", "A.last"), 1e-6) | {"B.right": 1.0, "B.left": 1.0}
    assert "B.mid" not in chosen(increases)


def test_weights_and_tensors_of_a_kernel_get_the_same_bits_and_a_reason() -> None:
    problem = Problem.of(ranking_of(TWO_STAGES, FLAT | {"A.act": 1.0, "A.last": 1.0}))
    choice = sensitive_ends(problem, high_bits=8, base_bits=4)
    assert choice.base_bits == 4
    assert choice.weights["A.first.weight"] == choice.grids["A.act"] == choice.grids["raw"] == 8
    assert choice.why["A.first"] == "kernel 1 from the beginning of A"
    assert choice.why["B.last"] == "kernel 1 from the end of B"


@pytest.mark.parametrize("falloff", [0, -1, 1.5])
def test_a_falloff_out_of_range_is_refused(falloff: float) -> None:
    with pytest.raises(OptionError, match="between 0 and 1"):
        chosen(FLAT, falloff=falloff)


def test_high_bits_below_base_bits_are_refused() -> None:
    with pytest.raises(OptionError, match="fewer than base bits"):
        chosen(FLAT, high_bits=4, base_bits=8)
