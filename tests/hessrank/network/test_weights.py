"""A weight that a hook computes before every call stays in float: rank, check and prepare name what undoes it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

import hessrank
from hessrank.cli import main
from hessrank.quant.bit_choice.make_policy import make_policy
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.layer_graph.quantizer_placement import place_quantizers

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
X = torch.randn(6, 2, 8, generator=torch.Generator().manual_seed(0))

MADE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": nn.utils.weight_norm,
    "spectral_norm": nn.utils.spectral_norm,
    "pruning": lambda module: prune.l1_unstructured(module, "weight", amount=0.5),
    "a parametrization": nn.utils.parametrizations.weight_norm,
}
WRITTEN = {
    "weight_norm": "utils.weight_norm(nn.Conv1d(2, 4, 3))",
    "spectral_norm": "utils.spectral_norm(nn.Conv1d(2, 4, 3))",
    "pruning": "prune.identity(nn.Conv1d(2, 4, 3), 'weight')",
    "a parametrization": "utils.parametrizations.weight_norm(nn.Conv1d(2, 4, 3))",
}
UNDONE: dict[str, Callable[[nn.Module], object]] = {
    "torch.nn.utils.remove_weight_norm(module)": remove_weight_norm,
    "torch.nn.utils.remove_spectral_norm(module)": remove_spectral_norm,
    "torch.nn.utils.prune.remove(module, 'weight')": lambda module: prune.remove(module, "weight"),
    "torch.nn.utils.parametrize.remove_parametrizations": lambda module: remove_parametrizations(module, "weight"),
}


def network(how: str) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(MADE[how](nn.Conv1d(2, 4, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)).eval()


@pytest.mark.parametrize("how", MADE)
def test_the_remedy_is_named_and_works(how: str) -> None:
    model = network(how)
    ranking = hessrank.rank(model, X)
    (note,) = (text for text in ranking.warnings if text.startswith("no weight trace for 0"))
    assert f"computed by {how}" in note
    policy = make_policy(ranking)
    prepared = hessrank.prepare(model, policy, X)
    (why,) = (why for name, why in prepared.unquantized.items() if name.startswith("weight of 0"))
    assert note.endswith(why)
    assert place_quantizers(Graph.of_ranking(ranking)).float_weights == {
        name.removeprefix("weight of "): why for name, why in prepared.unquantized.items() if "weight of" in name
    }
    remedy = re.fullmatch(r".*: (\S.*) makes it a plain weight", why)
    assert remedy is not None
    before = model(X)
    UNDONE[remedy[1]](model[0])
    assert torch.allclose(model(X), before, atol=1e-6)
    plain = hessrank.rank(model, X)
    assert not any("no weight trace" in text for text in plain.warnings)
    table = hessrank.prepare(model, make_policy(plain), X).table()
    assert ("0", "weight") in set(zip(table["layer"], table["tensor"], strict=True))


@pytest.mark.parametrize("how", MADE)
def test_check_says_it_too(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    make_policy(hessrank.rank(network(how), X)).write("policy.yaml")
    torch.save(network(how).state_dict(), "model.pt")
    torch.save(X, "x.pt")
    Path("nets.py").write_text(
        "import torch.nn.utils as utils\nfrom torch import nn\nfrom torch.nn.utils import prune\n"
        f"def net():\n    conv = {WRITTEN[how]}\n"
        "    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))\n"
    )
    assert main(["check", "policy.yaml", "model.pt", "--arch", "nets.py:net", "--data", "x.pt"]) == 0
    assert f"computed by {how}" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["weight_norm", "spectral_norm", "pruning"])
def test_the_weight_of_the_last_run_stands_in_no_copys_way(how: str, tmp_path: Path) -> None:
    """The hook leaves a weight with a history in the module, which torch does not copy."""
    model = network(how).train()
    model(X).sum().backward()
    ranking = hessrank.rank(model, X)
    prepared = hessrank.prepare(model, make_policy(ranking), X)
    prepared.train()(X).sum().backward()
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(prepared)
    assert hessrank.export_onnx(prepared, tmp_path / "model.onnx", X).path.exists()
    hessrank.rank(model.half(), X)


def test_what_is_no_such_hook_is_not_blamed() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(8, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.head(self.lstm(x)[0])
            return y

    ranking = hessrank.rank(Own().eval(), X)
    assert "no weight trace for lstm: only convolutions, linear layers and embeddings of the data" in ranking.warnings
