"""One process among those of torchrun."""

from __future__ import annotations

import pytest

from hessrank.cli.processes import choose_device, has_other_processes, is_first_process, join_processes

LAUNCHED = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500", "LOCAL_RANK": "1"}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("alone")
def test_alone_it_is_the_first_and_joins_nobody() -> None:
    assert not has_other_processes()
    assert is_first_process()
    assert choose_device("cuda") == "cuda"
    with join_processes() as group:
        assert group is None


def test_one_of_several_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    assert has_other_processes()
    assert not is_first_process()
    assert [choose_device(device) for device in ("cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:0", "cpu"]
    monkeypatch.setenv("RANK", "0")
    assert is_first_process()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not has_other_processes()
