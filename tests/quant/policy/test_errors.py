"""Errors of policies, each with its place."""

from __future__ import annotations

from hessrank.quant.policy.errors import MisfitError, PolicyError, no_such


def test_a_place_comes_before_the_problem() -> None:
    error = PolicyError("no key named 'wieght'", "policy.yaml", 11, 5)
    assert str(error) == "policy.yaml:11:5: no key named 'wieght'"
    assert (error.problem, error.line, error.column) == ("no key named 'wieght'", 11, 5)
    assert str(PolicyError("is empty")) == "is empty"


def test_a_misfit_knows_the_way_to_what_is_wrong() -> None:
    assert MisfitError("twice", "distill_config", 1).path == ("distill_config", 1)
    assert MisfitError("unknown", "wieght", at_key=True).at_key


def test_the_nearest_name_comes_first() -> None:
    assert no_such("key", "wieght", ["activation", "weight"]).startswith("no key named 'wieght'; nearest is 'weight'")
