"""Code that a policy may name."""

from __future__ import annotations

from pathlib import Path

import pytest

from hessrank.errors import OptionError
from hessrank.quant.policy.own_code import NOTHING, OWN_WORDS, Plugins, code_reference


def test_a_name_of_code_has_a_place_and_a_name() -> None:
    assert code_reference("mine.py:Soft") == "mine.py:Soft"
    for text in ("mine.py", ":Soft", "mine.py:"):
        with pytest.raises(OptionError, match=r"write pkg\.module:name or file\.py:name"):
            code_reference(text)
    assert Plugins.of("mine.py:Soft") == Plugins.of(["mine.py:Soft"])


def test_only_what_the_user_named_is_taken() -> None:
    assert NOTHING.require("lsq") == "lsq"
    assert OWN_WORDS.require("mine.py:Soft") == "mine.py:Soft"
    with pytest.raises(OptionError, match=r"no code is imported on a file's word.*--plugin mine\.py:Soft"):
        NOTHING.require("mine.py:Soft")
    with pytest.raises(OptionError, match=r"plugins: \['mine\.py:Soft'\] to run\.yaml"):
        Plugins(listed_in=Path("run.yaml")).require("mine.py:Soft")


def test_the_nearest_file_of_that_name_is_meant(tmp_path: Path) -> None:
    allowed = Plugins.of([f"{tmp_path}/a/mine.py:Soft", f"{tmp_path}/b/mine.py:Soft", f"{tmp_path}/b/mine.py:Hard"])
    assert allowed.find("b/mine.py:Soft") == f"{tmp_path}/b/mine.py:Soft"
    assert allowed.find("/elsewhere/mine.py:Hard") == f"{tmp_path}/b/mine.py:Hard"
    assert allowed.find("yours.py:Soft") is None
    assert NOTHING.and_those_of(OWN_WORDS).everything
