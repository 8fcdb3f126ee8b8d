"""What the README shows runs, in one folder and in this order, and gives the figures that stand there."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from helpers.notebook_runs import difference
from helpers.page_blocks import blocks, run
from helpers.places import ROOT

from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.result.tables import as_text
from hessrank.quant.bit_choice.make_policy import make_policy
from hessrank.quant.prepare import QuantizedModel

PAGE = ROOT / "README.md"
README = PAGE.read_text(encoding="utf-8")
TOLERANCE = 0.05  # relative: between processors traces differ by far less, single increases by a few percent
DECIBELS = 0.1
mpl.use("Agg")
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder like a fresh clone where every block of the README has run, and what its Python has at the end."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "examples").symlink_to(ROOT / "examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, run(blocks(PAGE), folder)


def test_every_file_that_a_command_names_is_there(clone: tuple[Path, dict[str, Any]]) -> None:
    commands = " ".join(block.text for block in blocks(PAGE, "bash"))
    written = re.findall(r"--(?:out|plot|bit-map) (\S+)", commands)
    assert len(written) >= 5
    for name in [*written, "ranking.json"]:
        assert (clone[0] / name).stat().st_size > 0, name


def test_the_python_makes_what_it_says(clone: tuple[Path, dict[str, Any]]) -> None:
    folder, names = clone
    assert isinstance(names["mine"], Ranking)
    assert isinstance(names["prepared"], QuantizedModel)
    assert isinstance(names["result"].model, QuantizedModel)
    assert (folder / "mine.onnx").exists()


def test_the_table_is_what_the_first_command_gives(clone: tuple[Path, dict[str, Any]]) -> None:
    printed = as_text(Ranking.read(clone[0] / "ranking.csv"), top=10, width=118)
    shown = blocks(PAGE, "text")[0].text
    assert difference(shown, "\n".join(line.rstrip() for line in printed.splitlines()), TOLERANCE) is None
    assert len(re.findall(r"^ *\d+ (?:\(\d+–\d+\))? *(\S+) +[\d.]+e", shown, flags=re.MULTILINE)) == 10


def test_the_figures_of_the_training_are_those_that_come_out(clone: tuple[Path, dict[str, Any]]) -> None:
    result = json.loads((clone[0] / "runs" / "run" / "result.json").read_text())
    before, last = result["before"], result["last"]
    found = [before["float"], before["quantized"], before["teacher"], last]
    text = README[README.index("<!-- figures: checked by a test -->") :]
    shown = [float(number) for number in re.findall(r"\d\d\.\d\d", text)[:4]]
    assert shown == pytest.approx([metrics["psnr_rgb"] for metrics in found], abs=DECIBELS)


def test_the_lines_of_the_policy_are_those_that_the_ranking_gives(clone: tuple[Path, dict[str, Any]]) -> None:
    """They stand in docs/policy.md, which runs on fewer samples."""
    written = str(make_policy(Ranking.read(clone[0] / "ranking.csv"), base_bits=4))
    entries = [line.split("#")[0].rstrip() for line in written.splitlines()]
    (shown,) = blocks(ROOT / "docs" / "policy.md", "yaml")
    for line in shown.text.splitlines():
        assert line in entries, line


def test_the_make_targets_exist() -> None:
    targets = re.findall(r"^    make (\w+)", README, flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_one_sees_it_whole() -> None:
    assert len(README.splitlines()) <= 170
