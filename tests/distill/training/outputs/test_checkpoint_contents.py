"""What a training's checkpoint may hold: every fact spoiled in turn is one line that names it, or does no harm."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training_networks import Net, trained

from hessrank.distill.training.outputs.checkpoint_contents import FACTS
from hessrank.distill.training.outputs.checkpoint_files import find_newest
from hessrank.distill.training.outputs.load_trained import load_trained, read_trained
from hessrank.errors import HessrankError, LoadError

REMOVED = object()
ODD: list[Any] = [REMOVED, None, -1, 2**80, float("nan"), "x", [1], {1: 2}, torch.zeros(2)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("run")
    trained(folder, epochs=1)
    path = find_newest(folder)
    assert path is not None
    held: dict[str, Any] = torch.load(path, weights_only=True)
    return held


def keys_of(held: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the paths of what a reader asks for."""
    yield from ((key,) for key in ("state_dict", "global_step"))
    yield from ((FACTS, key) for key in held[FACTS])
    yield from ((FACTS, "settings", key) for key in ("freeze_bn", "seed", "epochs"))
    yield from ((FACTS, "example", key) for key in ("args", "kwargs"))


def test_every_fact_is_checked(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    refused = []
    for path in keys_of(checkpoint):
        for value in ODD:
            held = copy.copy(checkpoint)
            inner = held
            for step in path[:-1]:
                inner[step] = copy.copy(inner[step])
                inner = inner[step]
            if value is REMOVED:
                del inner[path[-1]]
            else:
                inner[path[-1]] = value
            torch.save(held, tmp_path / "bad.ckpt")
            try:
                read_trained(tmp_path / "bad.ckpt")
            except LoadError as error:
                refused.append((path, value, str(error)))
    assert all(message.startswith(str(tmp_path / "bad.ckpt")) for _, _, message in refused)
    assert all(path[-1] in text or path[-2] in text or "newer" in text for path, _, text in refused)
    needed = [path for path in keys_of(checkpoint) if path not in (("global_step",), (FACTS, "metrics"))]
    assert {path for path, value, _ in refused if value is REMOVED} == set(needed)
    assert {path for path, value, _ in refused if value is ODD[-1]} == set(keys_of(checkpoint))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("policy", "extra_qconfig_dict: 1", "extra_qconfig_dict: 1 is not"),
        ("policy", "[", "bad.ckpt"),
        ("example", {"args": ["x"], "kwargs": {}}, "bad.ckpt: hessrank_training.example: holds no tensor"),
        ("example", {"args": [], "kwargs": {}}, "bad.ckpt: hessrank_training.example: holds no tensor"),
        ("version", 99, "newer hessrank; upgrade"),
        ("arch_args", {"nonsense": 1}, "nonsense"),
    ],
)
def test_facts_that_make_no_network_are_one_line(
    checkpoint: dict[str, Any], tmp_path: Path, key: str, value: Any, message: str
) -> None:
    held = {**checkpoint, FACTS: {**checkpoint[FACTS], key: value}}
    torch.save(held, tmp_path / "bad.ckpt")
    with pytest.raises(HessrankError, match=message):
        load_trained(tmp_path / "bad.ckpt", arch=Net)


@pytest.mark.parametrize(("key", "value"), [("epoch", "one"), ("identity", None), ("settings", {})])
def test_resuming_checks_too(checkpoint: dict[str, Any], tmp_path: Path, key: str, value: Any) -> None:
    torch.save({**checkpoint, FACTS: {**checkpoint[FACTS], key: value}}, tmp_path / "last-epoch0001.ckpt")
    with pytest.raises(LoadError, match=rf"last-epoch0001\.ckpt: {FACTS}\.{key}"):
        trained(tmp_path, epochs=2, resume=True)
