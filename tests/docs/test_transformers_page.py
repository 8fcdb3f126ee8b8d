"""Everything that docs/transformers.md says is executed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.places import ROOT
from helpers.transformer_networks import bert, vit

from hessrank.analysis.result.ranking import Ranking
from hessrank.cli import main

PAGE = (ROOT / "docs" / "transformers.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the page's commands name, made by the page's own Python."""
    monkeypatch.chdir(tmp_path)
    nets, data = blocks("python")
    (tmp_path / "nets.py").write_text(nets)
    namespace: dict[str, object] = {}
    torch.manual_seed(0)
    exec(compile(nets + data, "transformers.md", "exec"), namespace)
    assert isinstance(namespace["ranking"], Ranking)
    model = namespace["make"]()  # type: ignore[operator]
    model.save_pretrained("bert")
    torch.save(model.state_dict(), "weights.pth")
    vit().float().save_pretrained("vit")
    np.save("pictures.npy", np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32))
    return tmp_path


def test_the_commands_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) >= 6
    for program, *arguments in commands:
        assert program == "hessrank"
        assert main(arguments) == 0, (arguments, capsys.readouterr())
        ranks_tokens = arguments[0] != "verify" and {"tokens.npz", "labeled.npz"} & set(arguments)
        said = "".join(capsys.readouterr())
        assert ("padding (attention_mask is 0)" in said) == bool(ranks_tokens), arguments
    ranking = Ranking.read(folder / "ranking.csv")
    assert ranking.info["model"]["format"] == "transformers"
    assert ranking.info["model"]["arch"] == "transformers:BertForSequenceClassification"
    assert any("6 of 24 positions" in sentence for sentence in ranking.warnings)
    layer = "bert.encoder.layer.1.output.add"
    assert ranking[layer].numel == 16 * 18 // 4


def test_the_names_are_those_of_a_block(folder: Path) -> None:
    ranking = Ranking.read(_ranked(folder))
    order = ranking.to_frame().sort_values("execution_index")["layer"]
    assert [name for name in order if ".layer.0." in name] == blocks("text")[0].split()


def _ranked(folder: Path) -> Path:
    assert main(["bert", "--data", "tokens.npz", "--out", "names.csv", "--max-probes", "1"]) == 0
    return folder / "names.csv"


def test_one_line_says_what_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bert().float().save_pretrained("other")
    for arguments, remedy in (
        (["other", "--data", "random", "--input-shape", "8"], "--data tokens.npz, with an array of integers named"),
        (["other"], "no data: give --data"),
        (["other", "--data", "tokens.npz", "--arch", "nets.py:make"], "leave --arch out"),
    ):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert remedy in said.replace("\n", " "), said
