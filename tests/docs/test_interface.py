"""The page of the interface says what the code says."""

from __future__ import annotations

import pytest

import hessrank
from docs.make_interface import PAGE, make_page
from hessrank.cli.app import app


@pytest.fixture(scope="module")
def page() -> str:
    return make_page()


def test_the_page_is_not_stale(page: str) -> None:
    assert PAGE.read_text(encoding="utf-8") == page, "run `make interface`"


def test_every_command_and_every_public_name_is_there(page: str) -> None:
    headings = {line.strip("# ") for line in page.splitlines() if line.startswith("### ")}
    commands = {f"hessrank {registered.callback.__name__}" for registered in app.registered_commands}
    assert headings >= commands | {f"hessrank.{name}" for name in hessrank.__all__}
    assert "| `--trust-pickle` |" in page


def test_the_page_does_not_depend_on_the_terminal(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert make_page() == page
    assert " at 0x" not in page
