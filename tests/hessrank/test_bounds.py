"""Numbers that nobody means are refused in one line, wherever they are given."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.hand_graphs import U_NET, ranking_of
from torch import nn

from hessrank.analysis.rank import rank
from hessrank.bounds import check_number, check_whole
from hessrank.cli import main
from hessrank.distill.run_file import Settings
from hessrank.errors import HessrankError, OptionError
from hessrank.quant.bit_choice.make_policy import make_policy

RANKING = ranking_of(U_NET, {"out": 1.0}, {"out": 1.0})
LARGE = 2**64
HUGE = pytest.param(10**5000, id="5000 digits")


@pytest.mark.parametrize("value", [-1, LARGE, HUGE, 1.0, "1", None, True, math.nan])
def test_what_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^epochs is .{1,60}: it should be ") as caught:
        check_whole("epochs", value, least=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [-1, 0, HUGE, math.inf, math.nan, "1", None, False])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^gain is .{1,60}: it should be "):
        check_number("gain", value, above=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", LARGE),
        ("seed", -1),
        ("seed", 0.5),
        ("num_samples", 10**20),
        ("batch_size", 10**20),
        ("max_probes", "many"),
        ("max_probes", 10**20),
        ("tolerance", math.nan),
        ("tolerance", "small"),
        ("increase_probes", -1),
        ("increase_probes", 10**20),
        ("bits", 99999999999),
        ("bits", ("four",)),
    ],
)
def test_rank_refuses(name: str, value: Any) -> None:
    with pytest.raises(HessrankError, match=name):
        rank(nn.Linear(2, 2), torch.ones(2, 2), **{name: value})


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("budget", {"budget_bops": math.nan}),
        ("budget", {"budget_mean_bits": -1.0}),
        ("budget", {"budget_size_mib": "much"}),
        ("middle", {"budget_bops": math.inf}),
        ("threshold", {"above": math.nan}),
        ("top-k", {"count": 10**30}),
        ("top-k", {"count": 1.5}),
        ("sensitive-ends", {"falloff": math.nan}),
        ("sensitive-ends", {"falloff": "steep"}),
        ("uniform", {"distill_count": 0.5}),
    ],
)
def test_policies_refuse(strategy: str, options: dict[str, Any]) -> None:
    with pytest.raises(HessrankError, match=rf"^{next(iter(options))} is "):
        make_policy(RANKING, strategy, **options)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", LARGE, "seed: 18446744073709551616 is not 9223372036854775807 or less"),
        ("threads", 10**9, "threads: 1000000000 is not 4096 or less"),
        ("workers", 10**9, "workers: 1000000000 is not 4096 or less"),
        ("epochs", 10**18, "epochs: 1000000000000000000 is not 2147483647 or less"),
        ("data_timeout", 1e308, "data_timeout: 1e+308 is not 1000000000.0 or less"),
        ("weight_decay", 1e308, "weight_decay: 1e+308 is not 1000000.0 or less"),
        ("learning_rate", 1e308, "learning_rate: 1e+308 is not 1000000.0 or less"),
        ("learning_rate", math.nan, "learning_rate: nan is not a finite number"),
        ("batch_size", 0, "batch_size: 0 is not 1 or more"),
        pytest.param(
            "epochs", 10**5000, "epochs: a number of thousands of digits is not 2147483647 or less", id="huge"
        ),
    ],
)
def test_settings_refuse(name: str, value: Any, message: str) -> None:
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        Settings.of({name: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--seed", str(LARGE)),
        ("--seed", "-1"),
        ("--num-samples", str(LARGE)),
        ("--batch-size", "0"),
        ("--threads", "1000000000"),
        ("--plot-top", str(LARGE)),
        ("--gain", "nan"),
        ("--gain", "-1"),
        ("--tolerance", "nan"),
        ("--max-probes", str(LARGE)),
        ("--increase-probes", "-1"),
        ("--bits", "99999999999"),
    ],
)
def test_the_command_line_refuses(
    option: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("from torch import nn\n\n\ndef net():\n    return nn.Linear(2, 2)\n")
    torch.save(nn.Linear(2, 2).state_dict(), "m.pth")
    command = ["m.pth", "--arch", "net.py:net", "--data", "random", "--input-shape", "2", option, value]
    assert main(command) == 2
    assert option.strip("-").replace("-", "_") in capsys.readouterr().err.replace("-", "_")
