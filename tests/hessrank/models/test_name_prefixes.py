"""Prefixes of wrappers."""

from __future__ import annotations

from hessrank.models.name_prefixes import strip_prefixes

WANTED = ("a.weight", "b.weight")


def test_the_fewest_prefixes_go_that_match_the_most() -> None:
    assert strip_prefixes({"a.weight": 1, "b.weight": 2}, WANTED) == ({"a.weight": 1, "b.weight": 2}, ())
    names, notes = strip_prefixes({"model.module.a.weight": 1, "model.module.b.weight": 2}, WANTED)
    assert names == {"a.weight": 1, "b.weight": 2}
    assert notes == ("removed 'module.' from 2 keys", "removed 'model.' from 2 keys")


def test_a_wrapper_inside_a_name_goes_too_and_a_class_prefix_does_not() -> None:
    assert strip_prefixes({"a._orig_mod.weight": 1}, WANTED)[0] == {"a.weight": 1}
    assert strip_prefixes({"a.model.weight": 1}, WANTED) == ({"a.model.weight": 1}, ())


def test_two_keys_never_become_one() -> None:
    twins = {"module.a.weight": 1, "a.weight": 2}
    assert strip_prefixes(twins, WANTED) == (twins, ())


def test_what_averaged_model_counts_in_goes_with_its_prefix() -> None:
    names, notes = strip_prefixes({"n_averaged": 3, "module.a.weight": 1}, WANTED)
    assert names == {"a.weight": 1}
    assert notes[-1] == "left out AveragedModel's n_averaged"
