"""Every fenced block of the documents runs, page by page, and the pages name all that there is."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import pytest
from helpers.page_blocks import Block, blocks, run
from helpers.places import ROOT

from hessrank.analysis.estimators import ESTIMATORS
from hessrank.analysis.registries import LOSSES
from hessrank.analysis.result.ranking_table import COLUMNS
from hessrank.quant.bit_choice.strategies import STRATEGIES
from hessrank.quant.quantizers import OBSERVERS, QUANTIZERS

DOCS = ROOT / "docs"
RANKING = blocks(DOCS / "ranking.md")
BEFORE = dict.fromkeys(("policy", "scale", "verify"), RANKING[:2])  # pages that use the files of another
PAGES = ("policy", "ranking", "scale", "training", "verify")
ELSEWHERE = {"README", "CONTRIBUTING", "interface", "transformers"}  # have tests of their own
mpl.use("Agg")


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_run_one_after_the_other_in_one_folder(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run([*BEFORE.get(page, []), *blocks(DOCS / f"{page}.md")], tmp_path)


def test_a_page_with_blocks_that_run_is_run() -> None:
    def runs(block: Block) -> bool:
        return block.language in ("bash", "python") or block.file is not None

    pages = [*DOCS.glob("*.md"), *ROOT.glob("*.md")]
    assert {page.stem for page in pages if any(map(runs, blocks(page)))} - ELSEWHERE == set(PAGES)


@pytest.mark.parametrize(
    ("page", "names"),
    [("ranking", [*COLUMNS, *ESTIMATORS, *LOSSES]), ("policy", [*STRATEGIES, *QUANTIZERS, *OBSERVERS])],
)
def test_a_page_names_all_that_there_is(page: str, names: list[str]) -> None:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)] == []


@pytest.mark.parametrize("document", sorted(path.name for path in DOCS.glob("*.md")))
def test_commands_name_real_benchmarks(document: str) -> None:
    text = (DOCS / document).read_text(encoding="utf-8")
    for module in re.findall(r"python -m benchmarks\.(\w+)", text):
        folder = ROOT / "benchmarks"
        assert (folder / f"{module}.py").exists() or (folder / module / "__main__.py").exists(), module
