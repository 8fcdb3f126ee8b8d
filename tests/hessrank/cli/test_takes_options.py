"""A command that takes groups of options."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.testing import CliRunner

from hessrank.cli.takes_options import takes_options


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Argument()]
    height: Annotated[int, typer.Option(help="In cells.")] = 2


@dataclass(frozen=True)
class Look:
    color: Annotated[str, typer.Option()] = "red"


SEEN: list[Any] = []


@takes_options
def draw(*, title: Annotated[str, typer.Option()] = "none", size: Size, bold: bool = False, look: Look) -> None:
    """Draw a picture."""
    SEEN.append((title, size, bold, look))


def test_the_fields_of_a_group_are_options_in_its_place() -> None:
    parameters = inspect.signature(draw).parameters
    assert list(parameters) == ["title", "width", "height", "bold", "color"]
    assert parameters["width"].default is inspect.Parameter.empty
    assert parameters["height"].default == 2
    assert (draw.__name__, draw.__doc__) == ("draw", "Draw a picture.")


def test_the_command_is_given_the_groups() -> None:
    app = typer.Typer()
    app.command()(draw)
    assert CliRunner().invoke(app, ["7", "--bold", "--color", "blue"]).exit_code == 0
    assert SEEN == [("none", Size(7, 2), True, Look("blue"))]
    told = CliRunner().invoke(app, ["--help"]).output
    assert "In cells." in told
    assert "Draw a picture." in told
