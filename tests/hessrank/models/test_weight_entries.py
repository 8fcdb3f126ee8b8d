"""Weights inside a checkpoint."""

from __future__ import annotations

import torch
from torch import nn

from hessrank.models.weight_entries import Entry, describe_held, find_entries, needs_arch, taken_note

STATE = {"a.weight": torch.zeros(1), "_extra_state": 3}


def test_usual_names_come_first_and_keys_lead_there() -> None:
    held = {"epoch": 3, "other": STATE, "model": {"ema": dict(STATE)}, "net": nn.Linear(1, 1)}
    assert [entry.name for entry in find_entries(held)] == ["model.ema", "net", "other"]
    assert [entry.name for entry in find_entries(STATE)] == [""]
    assert find_entries({"epoch": 3}) == find_entries(torch.zeros(1)) == []


def test_a_circle_ends() -> None:
    held: dict[str, object] = {"model": STATE, "ema": STATE}
    held["self"] = held
    assert [entry.name for entry in find_entries(held)] == ["model"]


def test_a_module_gives_its_weights() -> None:
    assert list(Entry("net", nn.Linear(1, 1)).state_dict()) == ["weight", "bias"]


def test_notes_and_messages_name_what_is_there() -> None:
    one, other = Entry("model", STATE), Entry("ema", STATE)
    assert taken_note(Entry("", STATE), []) == ()
    assert taken_note(one, [one, other]) == (
        "took the entry 'model' (the file also holds 'ema'; --weights-key chooses)",
    )
    assert "2 keys: a.weight, _extra_state" in needs_arch(one)
    assert describe_held({"epoch": 3}) == "a dict of 'epoch'"
    assert [describe_held(held) for held in ({}, 3)] == ["an empty dict", "an object of type int"]
