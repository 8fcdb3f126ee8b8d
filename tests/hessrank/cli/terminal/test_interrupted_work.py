"""Ctrl-C during a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from hessrank.cli.terminal.interrupted_work import InterruptedWork, keeping_epochs


def test_it_says_how_to_go_on() -> None:
    with pytest.raises(InterruptedWork, match=r"^run holds the epochs that were finished: go on with --resume$"):
        with keeping_epochs(Path("run")):
            raise KeyboardInterrupt


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="else"), keeping_epochs(Path("run")):
        raise ValueError("else")
