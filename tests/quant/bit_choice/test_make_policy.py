"""From a ranking to a policy."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.hand_graphs import RESIDUAL, TWO_STAGES, U_NET, graph, ranking_of
from helpers.places import ROOT

import hessrank
from hessrank import Policy, Ranking, load_model, make_policy, rank, summarize
from hessrank.errors import ModelError, OptionError, UnknownNameError
from hessrank.quant.bit_choice.make_policy import policy_of
from hessrank.quant.bit_choice.strategies import BitChoice, Problem
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.policy import check, place_policy_quantizers, resolve

FIRST_USER = ROOT / "tests" / "quant" / "policy" / "first_user_run.yaml"
INCREASES = dict.fromkeys(TWO_STAGES.nodes, 1e-9) | {"A.act": 1.0, "A.last": 1.0, "B.left": 1.0, "B.last": 1.0}


@pytest.fixture(scope="module")
def low_light() -> Ranking:
    """The shipped network, ranked in a hurry."""
    loaded = load_model(ROOT / "examples" / "lowlight" / "model.pth")
    assert loaded.inputs is not None
    return rank(loaded.model, loaded.inputs[:4].float(), bits=(4, 8, 10), max_probes=2)


def test_the_first_users_ends_are_found(low_light: Ranking) -> None:
    """Everything that they chose by hand is in our policy, and so are their layers to distill, in their order."""
    by_hand = Policy.read(FIRST_USER)
    ours = make_policy(low_light, base_bits=4)
    assert set(by_hand.layers) <= set(ours.layers)
    assert ours.distill_config == by_hand.distill_config
    assert ours.distill_coeff == by_hand.distill_coeff
    assert len(ours.layers) < 40  # of 151: ends, not everything


def test_what_a_policy_says_is_what_its_network_gets(low_light: Ranking) -> None:
    ours, made = make_policy(low_light, base_bits=4), Graph.of_ranking(low_light)
    assert check(ours, made) == []
    settings = resolve(ours, made, place_policy_quantizers(ours, made))
    bits = {grid: setting.scheme.bits for grid, setting in settings.activations.items()}
    assert bits["raw"] == bits["DBF.DBF_conv1.lrelu"] == bits["DBLE.DBLE_out"] == 10
    assert bits["DBLE.dual_conv6.lrelu"] == 4
    assert settings.weights["DBF.DBF_out.weight"].scheme.bits == 10


def test_a_policy_is_written_and_read_again(low_light: Ranking, tmp_path: Path) -> None:
    ours = make_policy(low_light)
    ours.write(tmp_path / "policy.yaml")
    assert Policy.read(tmp_path / "policy.yaml") == ours
    text = (tmp_path / "policy.yaml").read_text()
    assert text.startswith(f"# hessrank policy · ranking sha256 {low_light.sha256[:16]}… · strategy sensitive-ends")


def test_every_line_has_its_reason() -> None:
    """Rank, trace, predicted increase before and after, and the strategy's word."""
    text = str(make_policy(ranking_of(TWO_STAGES, INCREASES, {"A.first": 2.0}), base_bits=4, high_bits=10))
    (line,) = [line for line in text.splitlines() if line.strip().startswith("A.first:")]
    assert line.split("# ")[1] == (
        "rank 6/15, trace 1.0e-07 ± 0 %, increase 2.0e+00 → 4.9e-04: kernel 1 from the beginning of A"
    )
    lines = text.splitlines()
    entries = [line for line in lines if line.startswith("    ") and not line.startswith("      ")]
    assert len(entries) > 5
    assert all("# rank" in line for line in entries)


def test_only_what_differs_from_the_base_is_named() -> None:
    policy = make_policy(ranking_of(TWO_STAGES, INCREASES), base_bits=4)
    assert "B.mid" not in policy.layers
    assert policy.extra_qconfig_dict.w_qscheme.bit == policy.extra_qconfig_dict.a_qscheme.bit == 4
    assert policy.layers["input_layer"] == "10"


def test_two_inputs_of_different_bits_are_named_apart() -> None:
    made = graph("x input\ny input\na Linear*a.w x\nb Linear*b.w y\nm mul a b\nc Linear*c.w m", "c")
    policy = policy_of(Problem.of(ranking_of(made, {})), BitChoice(8, {}, {"x": 10}))
    assert list(policy.layers) == ["x"]
    assert policy.named_activations["x"].bits == 10


def test_tied_grids_get_the_most_bits_of_any_of_them() -> None:
    policy = make_policy(ranking_of(RESIDUAL, {"relu": 9.0}), "top-k", count=1, base_bits=4)
    assert {"relu", "bn2"} <= set(policy.layers)


def reasons_of(policy: Policy) -> dict[str, str]:
    """Return the last part of each entry's comment."""
    lines = [line.strip() for line in str(policy).splitlines() if " → " in line]
    return {line.partition(":")[0]: line.partition(" → ")[2].partition(" ")[2] for line in lines}  # behind a number


CHAIN = """
    x  input
    a  Linear*a.w  x
    b  Linear*b.w  a
    s  add         a b
    c  Linear*c.w  s
    t  add         s c
    o  Linear*o.w  t
"""


def test_what_an_addition_ties_says_to_what_and_where() -> None:
    tied = reasons_of(make_policy(ranking_of(RESIDUAL, {"relu": 9.0}), "top-k", count=1, base_bits=4))
    assert tied["bn2"] == "same bits as relu: they are added in add"
    assert tied["relu"] == "number 1 by increase"
    chain = ranking_of(graph(CHAIN, "o"), {"c": 9.0})
    assert reasons_of(make_policy(chain, "top-k", count=1, base_bits=4))["s"] == (
        "same bits as c: they are added in t"
    )


def test_what_a_concatenation_and_a_shared_weight_tie_says_so() -> None:
    made = make_policy(ranking_of(U_NET, {"up": 9.0}), "top-k", count=1, base_bits=4)
    assert reasons_of(made)["up"] == "one grid with relu1"
    twice = graph("x input\na Linear*w x\nb Sigmoid a\nc Linear*w b\nd Sigmoid c", "d")
    made = make_policy(ranking_of(twice, {"c": 9.0}, {"a": 1.0}), "top-k", count=1, base_bits=4)
    (line,) = [line for line in str(made).splitlines() if line.strip().startswith("a:")]
    assert line.endswith(", one weight with c")


def test_every_line_of_a_budget_has_its_reason() -> None:
    policy = make_policy(ranking_of(RESIDUAL, {"relu": 9.0}, {"conv1": 3.0}), "budget", budget_mean_bits=6)
    found = reasons_of(policy)
    assert found["conv1"] == "least total increase within the budget"
    assert found["bn2"] == "same bits as relu: they are added in add"
    assert list(found) == list(policy.layers)
    assert all(found.values())


def test_schemes_methods_and_observers_are_passed_on() -> None:
    policy = make_policy(
        ranking_of(U_NET, {}),
        weight_scheme="per_channel_symmetric",
        activation_scheme="per_tensor_symmetric",
        method="lsq",
        observer="mse",
    )
    assert policy.extra_qconfig_dict.w_qscheme.symmetry
    assert (policy.weight_method, policy.activation_observer) == ("lsq", "mse")
    assert policy.layers["conv1"].weight == "10 per_channel_symmetric"  # type: ignore[union-attr]


def test_distillation_can_be_chosen_and_left_out() -> None:
    ranking = ranking_of(TWO_STAGES, INCREASES)
    assert make_policy(ranking, distill="none").distill_config == ()
    policy = make_policy(ranking, distill="head", distill_count=1, distill_coeff=0.1)
    assert (policy.distill_config, policy.distill_coeff) == (("A.act",), (0.1,))


def test_a_strategy_of_ones_own_is_found_by_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from hessrank.quant.bit_choice.strategies import BitChoice\n\n"
        "def low(problem, *, bits=3):\n    return BitChoice(bits, {}, {})\n"
    )
    policy = make_policy(ranking_of(U_NET, {}, {}), f"{tmp_path / 'mine.py'}:low", bits=4)
    assert policy.extra_qconfig_dict.w_qscheme.bit == 4


def test_the_strategy_on_the_page_works(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n# mine.py\n(.*?)```", page, flags=re.DOTALL)
    assert code
    (tmp_path / "mine.py").write_text(code[1])
    policy = make_policy(ranking_of(U_NET, {}), f"{tmp_path / 'mine.py'}:first_and_last", high_bits=6)
    assert {"conv1", "out"} <= set(policy.layers)
    assert policy.named_weights["out"].bits == 6


def test_a_strategy_that_returns_something_else_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def nothing(problem):\n    return None\n")
    with pytest.raises(OptionError, match="returned a NoneType, not a BitChoice"):
        make_policy(ranking_of(U_NET, {}), f"{tmp_path / 'mine.py'}:nothing")


@pytest.mark.parametrize("options", [{"base_bits": 1}, {"high_bits": 17}, {"high_bits": 1}], ids=str)
def test_bits_out_of_range_are_refused_as_such(options: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="bits: bit-widths run from 2 to 16"):
        make_policy(ranking_of(U_NET, {}), **options)


def test_options_that_a_strategy_does_not_take_are_refused() -> None:
    ranking = ranking_of(U_NET, {})
    with pytest.raises(OptionError, match="takes no option 'high_bit'; it takes high_bits, base_bits"):
        make_policy(ranking, high_bit=10)
    with pytest.raises(OptionError, match="'budget_bops'; the strategy 'budget' or 'middle' does; it takes"):
        make_policy(ranking, budget_bops=1e9)
    with pytest.raises(UnknownNameError, match="no strategy named 'budgets'; nearest is 'budget'"):
        make_policy(ranking, "budgets")


def test_what_is_no_ranking_or_cannot_be_quantized_is_refused() -> None:
    with pytest.raises(OptionError, match=r"a str is no ranking: hessrank\.Ranking\.read\(path\) reads one"):
        make_policy("ranking.csv")  # type: ignore[arg-type]
    nodes = [replace(node, inside=True) for node in U_NET.nodes.values()]
    with pytest.raises(ModelError, match=r"nothing in this network can be quantized: torch\.fx cannot trace it"):
        make_policy(ranking_of(Graph.of(nodes, U_NET.outputs), {}))


def test_a_ranking_without_its_graph_says_what_is_missing() -> None:
    with pytest.raises(ModelError, match=r"keep ranking\.json beside ranking\.csv"):
        make_policy(Ranking(ranking_of(U_NET, {}).to_frame(), {}))


def test_a_summary_counts_what_the_policy_costs_and_predicts(low_light: Ranking) -> None:
    ends, four = (
        make_policy(low_light, base_bits=4),
        make_policy(low_light, "top-k", count=1, base_bits=4, high_bits=4),
    )
    found, least = summarize(ends, low_light), summarize(four, low_light)
    assert least.costs.mean_weight_bits == least.costs.mean_act_bits == 4
    assert found.costs.bops > least.costs.bops
    assert found.increase < least.increase / 3
    assert found.in_float.size_mib == pytest.approx(1031579 * 4 / 2**20)
    assert found.in_float.bops == pytest.approx(least.costs.bops * 64)
    assert "MiB" in str(found)


def test_it_is_the_front_doors() -> None:
    assert hessrank.make_policy is make_policy


def test_a_join_of_constants_is_a_layer_as_any_other() -> None:
    made = graph("x input\nconst cat\nconv Conv2d*w x\nsum add conv const", "sum")
    assert make_policy(ranking_of(made, {"x": 1.0}), "uniform").extra_qconfig_dict.w_qscheme.bit == 8


def test_a_join_that_multiplies_is_refused() -> None:
    made = graph("x input\nconv Conv2d*w x\njoin cat*v conv x", "join")
    with pytest.raises(ModelError, match="'join', a cat, multiplies with a weight, which none does"):
        make_policy(ranking_of(made, {"x": 1.0}), "uniform")
