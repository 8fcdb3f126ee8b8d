"""What the documents name is there: files, folders, modules, links and the headings that these lead to."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.places import ROOT

PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")})
PAGES.remove(ROOT / "CHANGELOG.md")  # speaks of what was
FOLDERS = "analysis|benchmarks|distill|docs|examples|hessrank|notebooks|quant|tests"
PATH = re.compile(rf"(?<![\w./-])(?:{FOLDERS})/[\w./-]*\w")
MODULE = re.compile(r"(?<![\w./-])hessrank(?:\.\w+)+(?![\w/])")
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
FILES = {"hessrank.lock"}  # written like a module

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def found(name: str) -> Any:
    """Return what a dotted name stands for: a module, or something in one."""
    whole, *parts = name.split(".")
    thing = importlib.import_module(whole)
    for part in parts:
        whole += f".{part}"
        thing = getattr(thing, part) if hasattr(thing, part) else importlib.import_module(whole)
    return thing


def anchors(page: Path) -> set[str]:
    """Return what links to the headings of a page may end in, as GitHub makes it of them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@each_page
def test_every_path_leads_somewhere(page: Path) -> None:
    names = {name for name in PATH.findall(page.read_text("utf-8")) if "NAME" not in name}
    assert [name for name in sorted(names) if not ((ROOT / name).exists() or (page.parent / name).exists())] == []


@each_page
def test_every_module_imports(page: Path) -> None:
    for name in sorted(set(MODULE.findall(page.read_text("utf-8"))) - FILES):
        assert found(name) is not None, name


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text("utf-8")):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_reached_from_the_readme() -> None:
    reached, ahead = set[Path](), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            links = LINK.findall(page.read_text("utf-8"))
            ahead += [(page.parent / link.partition("#")[0]).resolve() for link in links if not link.startswith("#")]
    assert [str(page) for page in PAGES if page not in reached] == []
