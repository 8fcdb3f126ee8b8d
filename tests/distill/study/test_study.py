"""A study: every experiment with every seed, resumable, with its table and its picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from shutil import copytree

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.rankings import ranked
from matplotlib.axes import Axes

from hessrank import summarize
from hessrank.analysis.result.ranking import Ranking
from hessrank.cli import main
from hessrank.distill.study import read_study
from hessrank.distill.study.file import slug
from hessrank.distill.study.plots import plot_study
from hessrank.distill.study.policies import Policies
from hessrank.distill.study.run import is_finished, plan_trainings, run_study
from hessrank.distill.study.table import markdown, summary
from hessrank.distill.tasks.classification import DigitNet
from hessrank.errors import HessrankError, OutputError

BASE = """
base:
  task: classification
  load_model: digits.pth
  arch_args: {width: 4}
  epochs: 1
  batch_size: 32
  calibration_samples: 8
  threads: 1
  pictures: 0
  task_args: {samples: 64}
ranking_samples: 2
seeds: [0, 1]
policies:
  low: {strategy: uniform, base_bits: 4}
  by hand: {file: hand.yaml, base_bits: 4}
  ours: {strategy: budget, bits: [4, 8], bops_of: by hand}
  middle: {strategy: middle, base_bits: 4, high_bits: 8, bops_of: by hand}
experiments:
  float: {quant: false, epochs: 0}
  low: {policy: low}
  low/tail 0.1: {policy: low, distill: tail, coefficient: 0.1}
  ours: {policy: ours, learning_rate: 1e-3}
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, a policy by hand, and the network's ranking."""
    folder = tmp_path_factory.mktemp("study")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(DigitNet(width=4).state_dict(), folder / "digits.pth")
    (folder / "hand.yaml").write_text("extra_quantizer_dict: {special_layer: {stem.conv: {weight: 8}}}\n")
    (folder / "study.yaml").write_text(BASE)
    return folder


@pytest.fixture(scope="module")
def done(shared: Path) -> Path:
    """The study's folder, finished."""
    assert main(["study", str(shared / "study.yaml")]) == 0
    return shared / "studies" / "study"


def test_a_row_a_training(done: Path) -> None:
    rows = pd.read_csv(done / "results.csv")
    assert rows[["experiment", "seed"]].to_numpy().tolist() == [
        [name, seed] for name in ("float", "low", "low/tail 0.1", "ours") for seed in (0, 1)
    ]
    for _, row in rows.iterrows():
        folder = done / "runs" / slug(row["experiment"]) / f"seed-{row['seed']}"
        result = json.loads((folder / "result.json").read_text())
        assert row["last_top1"] == pytest.approx(result["last"]["top1"])
        assert row["best_loss"] == pytest.approx(result["best"]["loss"])
        assert row["before_top1"] == pytest.approx(
            result["before"]["float" if row["experiment"] == "float" else "quantized"]["top1"]
        )
    assert rows.loc[rows["experiment"] == "float", "bops"].isna().all()


def test_costs_are_those_of_the_policies(done: Path, shared: Path) -> None:
    rows = pd.read_csv(done / "results.csv").set_index("experiment")
    study, ranking = read_study(shared / "study.yaml"), Ranking.read(done / "ranking.csv")
    policies = Policies(study, ranking)
    assert rows.loc["low", "bops"].iloc[0] == pytest.approx(summarize(policies["low"], ranking).costs.bops)
    assert policies.costs(policies["ours"]).bops <= policies.costs(policies["by hand"]).bops
    assert (
        policies.costs(policies["low"]).bops
        <= policies.costs(policies["middle"]).bops
        <= policies.costs(policies["by hand"]).bops
    )
    assert policies["by hand"].extra_qconfig_dict.w_qscheme.bit == 4
    assert str(policies["by hand"].named_weights["stem.conv"]) == "8 per_channel_affine"


def test_experiments_get_their_hints_and_their_seeds(done: Path, shared: Path) -> None:
    study = read_study(shared / "study.yaml")
    plan = plan_trainings(study, Policies(study, Ranking.read(done / "ranking.csv")))
    tail = next(one for one in plan if one.experiment == "low/tail 0.1" and one.seed == 1)
    assert tail.run.keys.seed == 1
    assert tail.run.policy.distill_coeff == (0.1,)
    assert len(tail.run.policy.distill_config) == 1
    low = next(one for one in plan if one.experiment == "low")
    assert low.run.policy.distill_config == ()
    columns = pd.read_csv(tail.folder / "metrics.csv").columns
    assert f"train/{tail.run.policy.distill_config[0]}" in columns


def test_what_is_finished_is_not_run_again(
    done: Path, shared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("result.json")}
    assert len(before) == 8
    assert main(["study", str(shared / "study.yaml")]) == 0
    assert {path: path.stat().st_mtime_ns for path in done.rglob("result.json")} == before
    assert " of 8: " not in capsys.readouterr().err


def test_an_interrupted_training_goes_on(done: Path, shared: Path) -> None:
    folder = done / "runs" / "low" / "seed-0"
    expected = (folder / "result.json").read_text()
    (folder / "result.json").unlink()
    assert main(["study", str(shared / "study.yaml"), "--only", "low"]) == 0
    assert (folder / "result.json").read_text() == expected


def test_a_changed_experiment_is_not_taken_for_finished(done: Path, shared: Path) -> None:
    other = shared / "other.yaml"
    other.write_text(BASE.replace("learning_rate: 1e-3", "learning_rate: 2e-3") + "out: studies/study\n")
    study = read_study(other)
    plan = plan_trainings(study, Policies(study, Ranking.read(done / "ranking.csv")))
    assert [is_finished(one) for one in plan] == [True] * 6 + [False] * 2
    assert main(["study", str(other)]) == 2


def test_another_network_is_another_study(
    done: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same file over other weights: nothing of what is there counts as finished."""
    copytree(shared, tmp_path / "study")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.save(DigitNet(width=4).state_dict(), tmp_path / "study" / "digits.pth")
    assert main(["study", str(tmp_path / "study" / "study.yaml")]) == 2
    told = capsys.readouterr().err
    assert "ranks the float network" in told
    assert "started with something else: load_model, content" in told


def test_the_ranking_predicts_for_the_bits_that_the_policies_have(done: Path) -> None:
    assert {4, 8} <= set(Ranking.read(done / "ranking.csv").info["study"]["bits"])


def test_the_table_and_the_picture(done: Path) -> None:
    text = (done / "results.md").read_text()
    lines = text.splitlines()
    assert lines[0] == "| experiment | seeds | GBOPs | MiB | top1 before | top1 | loss | monitored |"
    assert all(line.endswith("| top1 |") for line in lines[2:])
    assert set(pd.read_csv(done / "results.csv")["monitor"]) == {"top1"}
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["float", "low", "low/tail 0.1", "ours"]
    assert all(" ± " in line for line in lines[2:])
    assert (done / "results.png").stat().st_size > 1000


def rows(values: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        {"experiment": name, "seed": seed, "bops": 2e9, "size_mib": 0.5, "before_psnr": 10.0, "last_psnr": value}
        for name, found in values.items()
        for seed, value in enumerate(found)
    )


def test_means_and_standard_errors() -> None:
    table = summary(rows({"b": [1.0, 2.0, 6.0], "a": [5.0]})).set_index("experiment")
    assert list(table.index) == ["b", "a"]
    assert table.loc["b", "last_psnr"] == 3.0
    assert table.loc["b", "sem_psnr"] == pytest.approx(np.std([1, 2, 6], ddof=1) / math.sqrt(3))
    assert math.isnan(table.loc["a", "sem_psnr"])


def test_as_many_digits_as_the_error_needs() -> None:
    lines = markdown(rows({"b": [21.123456, 21.163456], "a": [5.0], "c": [7.0, 7.0]})).splitlines()
    assert lines[2] == "| b | 2 | 2 | 0.5 | 10 | 21.143 ± 0.020 |"
    assert lines[3] == "| a | 1 | 2 | 0.5 | 10 | 5 |"
    assert lines[4] == "| c | 2 | 2 | 0.5 | 10 | 7.00 ± 0.00 |"


def test_the_monitored_metric_comes_first_and_is_named() -> None:
    found = rows({"b": [1.0, 2.0]}).assign(before_loss=0.5, last_loss=0.25, monitor="loss")
    lines = markdown(found).splitlines()
    assert lines[0] == "| experiment | seeds | GBOPs | MiB | loss before | loss | psnr | monitored |"
    assert lines[2] == "| b | 2 | 2 | 0.5 | 0.5 | 0.25 ± 0.00 | 1.50 ± 0.50 | loss |"
    assert plot_study(found).get_xlabel() == "loss, validation"


def test_the_picture_names_every_experiment() -> None:
    axes = plot_study(rows({f"experiment {i}": [20.0 + i, 21.0 + i] for i in range(12)}))
    assert isinstance(axes, Axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"experiment {i}" for i in range(12)][::-1]


MISTAKES = {
    "a misspelled key": ("seed: [0]", "study.yaml:1:1: no key named 'seed'; nearest is 'seeds'"),
    "no experiments": ("seeds: [0]", "experiments"),
    "a misspelled run key": ("experiments:\n  a: {epoch: 1}", "study.yaml:2:7: no key named 'epoch'; nearest is"),
    "a wrong value": ("experiments:\n  a: {epochs: x}", "study.yaml:2:15: epochs: 'x' is not a whole number"),
    "a wrong value of all": ("base: {epochs: x}\nexperiments:\n  a: {}", "study.yaml:1:16: epochs: 'x'"),
    "no such policy": ("experiments:\n  a: {policy: b}", "study.yaml:2:15: no policy named 'b' in this study"),
    "a wrong count": ("experiments:\n  a: {distill_count: 0}", "study.yaml:2:22: distill_count: 0 is not 1 or more"),
    "a key of one run": ("experiments:\n  a: {debug: true}", "study.yaml:2:7: debug has no place in a study"),
    "a seed of one run": ("base: {seed: 3}\nexperiments:\n  a: {}", "1:8: seed has no place in a study: seeds"),
    "a name of dots": ("experiments:\n  ..: {}", "2:3: '..' names no folder"),
    "a name of nothing": ("experiments:\n  '': {}", "2:3: '' names no folder"),
    "a name of punctuation": ("experiments:\n  '//!': {}", "2:3: '//!' names no folder"),
    "a name too long": ("experiments:\n  " + "n" * 201 + ": {}", "2:3: 'nnn"),
    "a seed too large": ("seeds: [18446744073709551616]\nexperiments: {a: {}}", "1:9: seeds: 1844674407370955"),
    "bits that are none": ("policies:\n  p: {bits: 5}\nexperiments:\n  a: {}", "study.yaml:2:13: bits: 5 is not a l"),
    "bits of a file": ("policies:\n  p: {file: f, base_bits: 99}\nexperiments:\n  a: {}", "99 bits: bit-widths run"),
    "bits too many": ("policies:\n  p: {base_bits: 99}\nexperiments:\n  a: {}", "study.yaml:2:18: base_bits: "),
    "a file that is none": ("policies:\n  p: {file: 5}\nexperiments:\n  a: {}", "study.yaml:2:13: file: 5 is not"),
    "a policy that is a list": ("policies:\n  p: {bops_of: [q]}\nexperiments:\n  a: {}", "2:16: bops_of: ['q'] is "),
    "a ranking in a policy": ("policies:\n  p: {ranking: r}\nexperiments:\n  a: {}", "2:7: the ranking is the study"),
    "no finite budget": ("policies:\n  p: {budget_bops: .nan}\nexperiments:\n  a: {}", "2:20: budget_bops: nan"),
    "two names that differ in case": ("experiments:\n  a: {}\n  A: {}", "3:3: 'A' and 'a' would share a folder"),
    "one folder for two": ("experiments:\n  a b: {}\n  a-b: {}", "3:3: 'a-b' and 'a b' would share a folder"),
    "a misspelled own key": ("experiments:\n  a: {polcy: b}", "2:7: no key named 'polcy'; nearest is 'policy'"),
    "no seeds": ("seeds: []\nexperiments:\n  a: {}", "study.yaml:1:8: seeds"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_with_its_place(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(HessrankError) as caught:
        read_study(tmp_path / "study.yaml")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


POLICY_MISTAKES = {
    "no such strategy": ("{strategy: budgt}", "study.yaml:2:6: no strategy named 'budgt'; nearest is 'budget'"),
    "no such option": ("{strategy: uniform, base_bit: 4}", "takes no option 'base_bit'"),
    "no such file": ("{file: nothing.yaml}", "there is no such file"),
    "another key beside a file": ("{file: hand.yaml, base_bts: 4}", "study.yaml:2:6: no key named 'base_bts'"),
    "the BOPs of nothing": ("{strategy: budget, bops_of: nothing}", "no policy named 'nothing' in this study"),
    "the BOPs of itself": ("{strategy: budget, bops_of: a}", "bops_of goes round in a circle: a → a"),
}


@pytest.mark.parametrize(("told", "expected"), POLICY_MISTAKES.values(), ids=POLICY_MISTAKES.keys())
def test_a_mistake_in_a_policy(told: str, expected: str, done: Path, shared: Path) -> None:
    (shared / "bad").mkdir(exist_ok=True)
    (shared / "bad" / "hand.yaml").write_text((shared / "hand.yaml").read_text())
    (shared / "bad" / "study.yaml").write_text(f"policies:\n  a: {told}\nexperiments:\n  b: {{policy: a}}\n")
    study = read_study(shared / "bad" / "study.yaml")
    with pytest.raises(HessrankError) as caught:
        plan_trainings(study, Policies(study, Ranking.read(done / "ranking.csv")))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_one_that_is_not_there(shared: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", str(shared / "study.yaml"), "--only", "lo"]) == 2
    assert "no experiment named 'lo'; nearest is 'low'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["results.csv", "results.md", "results.png"])
def test_tables_of_others_are_not_written_over(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("mine")
    (tmp_path / "study.yaml").write_text("out: .\nexperiments:\n  a: {}\n")
    monkeypatch.chdir(tmp_path)
    assert main(["study", "study.yaml"]) == 2
    assert f"error: {name}: no study has written it" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"


def test_a_ranking_that_no_study_made_is_not_written_over(shared: Path, tmp_path: Path) -> None:
    for path in shared.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "out").mkdir()
    ranked("exact").to_csv(tmp_path / "out" / "ranking.csv")
    before = (tmp_path / "out" / "ranking.csv").read_bytes()
    (tmp_path / "study.yaml").write_text(BASE + "out: out\n")
    with pytest.raises(OutputError, match="is a ranking that no study made"):
        run_study(read_study(tmp_path / "study.yaml"), say=lambda line: None)
    assert (tmp_path / "out" / "ranking.csv").read_bytes() == before
