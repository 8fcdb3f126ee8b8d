"""Size, BOPs, mean bits and latency of a choice, by hand and as limits."""

from pathlib import Path

import numpy as np
import pytest

from hessrank.errors import OptionError
from hessrank.quant.bit_choice.allocation.latency import latency_limit, read_latency
from hessrank.quant.bit_choice.allocation.policy_cost import (
    Bits,
    bops_limit,
    count_costs,
    decisions,
    mean_bits_limits,
    products,
    size_limit,
    ties,
)
from hessrank.quant.layer_graph.graph import Graph, Node
from hessrank.quant.layer_graph.quantizer_placement import QuantizerPlacement, find_folded_norms, place_quantizers

WIDTHS = [2, 4, 8, 16]


def network() -> Graph:
    """Two calls of one convolution, an addition, a product of two activations, a last layer."""
    return Graph.of(
        [
            Node("x", "input", numel=100),
            Node("conv", "Conv2d", ("x",), numel=200, macs=1000, weight="conv.weight", weight_numel=50),
            Node("relu", "ReLU", ("conv",), numel=200),
            Node("conv_dup1", "Conv2d", ("relu",), numel=200, macs=3000, weight="conv.weight", weight_numel=50),
            Node("add", "add", ("relu", "conv_dup1"), numel=200),
            Node("matmul", "matmul", ("add", "x"), numel=10, macs=700),
            Node("square", "matmul", ("matmul", "matmul"), numel=10, macs=90),
            Node("fc", "Linear", ("square",), numel=5, macs=40, weight="fc.weight", weight_numel=30),
        ],
        ["fc"],
    )


def assigned(placement: QuantizerPlacement, **grids: int) -> Bits:
    return Bits(dict.fromkeys(placement.weights, 8), dict.fromkeys(placement.grids, 8) | grids)


def test_the_costs_of_a_small_network_are_those_worked_out_by_hand() -> None:
    graph = network()
    placement = place_quantizers(graph)
    assert list(placement.grids) == ["x", "relu", "conv_dup1", "add", "matmul", "square", "fc"]
    bits = Bits(
        {"conv.weight": 4, "fc.weight": 10},
        {"x": 10, "relu": 6, "conv_dup1": 6, "add": 8, "matmul": 5, "square": 3, "fc": 16},
    )
    found = count_costs(graph, placement, bits, other_parameters=11)
    assert found.size_mib == (50 * 4 / 8 + 30 * 16 / 8 + 11 * 4) / 2**20  # 10 bits are stored in 16
    assert found.bops == 1000 * 4 * 10 + 3000 * 4 * 6 + 700 * 8 * 10 + 90 * 5 * 5 + 40 * 10 * 3
    assert found.mean_weight_bits == (50 * 4 + 30 * 10) / 80
    assert found.mean_act_bits == (100 * 10 + 200 * 6 + 200 * 6 + 200 * 8 + 10 * 5 + 10 * 3 + 5 * 16) / 725
    assert (found.float_size, found.float_bops, found.quantized_weights) == (0, 0, 1)


@pytest.mark.parametrize(
    ("bits", "width"), [(2, 4), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (10, 16), (16, 16), (32, 32)]
)
def test_a_weight_takes_the_narrowest_type_that_holds_it_and_a_scale_and_zero_point_a_channel(
    bits: int, width: int
) -> None:
    nodes = [
        Node("x", "input"),
        Node("fc", "Linear", ("x",), weight="fc.weight", weight_numel=30, channels=5, reads=("fc.bias",)),
    ]
    graph = Graph.of(nodes, ["fc"], stored={"fc.bias": 20})
    placement = place_quantizers(graph)
    for one_scale, scales in (((), 5), (("fc.weight",), 1)):
        found = count_costs(graph, placement, Bits({"fc.weight": bits}, {}, one_scale))
        own = 0 if bits == 32 else scales * (4 + width / 8)
        graph_itself = 0 if bits == 32 else 2 * 80 + 2 * 480 + 280 + 8 * len("xfc" + "fc.weight")
        assert found.size_mib == (30 * width / 8 + own + 20 + graph_itself) / 2**20


def test_a_folded_batch_norm_is_gone_from_the_file_and_leaves_a_bias() -> None:
    norm = tuple(f"bn.{name}" for name in ("weight", "bias", "running_mean", "running_var"))
    for bias, left in (((), 6 * 4), (("conv.bias",), 24)):
        nodes = [
            Node("x", "input"),
            Node("conv", "Conv2d", ("x",), (6, 2, 2), weight="w", weight_numel=50, channels=6, reads=bias),
            Node("bn", "BatchNorm2d", ("conv",), (6, 2, 2), reads=norm),
        ]
        stored = dict.fromkeys(norm, 24) | dict.fromkeys(bias, 24)
        graph = Graph.of(nodes, ["bn"], stored=stored)
        placement = place_quantizers(graph)
        assert find_folded_norms(graph, placement) == {"bn": "conv"}
        without = count_costs(graph, placement, Bits({"w": 32}, {})).size_mib  # nothing but float tensors
        assert without == (200 + left) / 2**20
        named = place_quantizers(graph, named=["conv"])  # a quantizer between the two
        assert find_folded_norms(graph, named) == {}
        assert count_costs(graph, named, Bits({"w": 32}, {})).size_mib == (200 + sum(stored.values())) / 2**20


def in_part_float() -> Graph:
    """A convolution, one that a function computes, a recurrent layer, a product of one tensor with itself."""
    return Graph.of(
        [
            Node("x", "input", numel=10),
            Node("conv", "Conv2d", ("x",), numel=10, macs=100, weight="conv.weight", weight_numel=50),
            Node("conv2d", "conv2d", ("conv",), numel=10, macs=70, float_weights=("f.weight",), why_float="why"),
            Node("lstm", "LSTM", ("conv2d", "x"), macs=9, float_weights=("lstm.w",), float_owner="l", why_float="?"),
            Node("matmul", "matmul", ("lstm",), macs=5),
            Node("times", "matmul", ("matmul",), macs=3, float_inputs={"at": "a constant"}),
        ],
        ["times"],
        stored={"f.weight": 200, "lstm.w": 400},
    )


def test_what_stays_in_float_counts_32_bits_everywhere() -> None:
    graph = in_part_float()
    placement = place_quantizers(graph)
    found = count_costs(graph, placement, Bits({"conv.weight": 4}, dict.fromkeys(placement.grids, 8)))
    floating = 70 * 32 * 8 + 9 * 32 * 8 + 3 * 8 * 32
    assert found.bops == 100 * 4 * 8 + floating + 5 * 8 * 8
    assert found.float_bops == floating / found.bops
    assert found.float_size * found.size_mib == pytest.approx(600 / 2**20)
    assert 625 / 2**20 < found.size_mib < (625 + 200 * 6 + 600 * 6) / 2**20
    assert (found.mean_weight_bits, found.mean_quantized_weight_bits) == ((50 * 4 + 150 * 32) / 200, 4)
    assert found.quantized_weights == 0.25
    weights, _ = mean_bits_limits(graph, placement, WIDTHS)
    assert weights.value([1] * len(decisions(placement))) == found.mean_weight_bits
    assert bops_limit(graph, placement, WIDTHS).value([1, *[2] * len(placement.grids)]) == found.bops
    assert size_limit(graph, placement, WIDTHS).value([1, *[2] * len(placement.grids)]) == found.size_mib
    assert placement.in_float == {"weight of conv2d": "why", "weight of l": "?", "input at of times": "a constant"}


def test_what_is_excluded_counts_32_bits() -> None:
    graph = network()
    placement = place_quantizers(graph, excluded=["fc", "x"])
    found = count_costs(graph, placement, assigned(placement))
    assert found.size_mib == (50 + 30 * 4) / 2**20
    assert found.bops == 1000 * 8 * 32 + 3000 * 8 * 8 + 700 * 8 * 32 + 90 * 8 * 8 + 40 * 32 * 8
    assert (found.mean_weight_bits, found.mean_act_bits) == ((50 * 8 + 30 * 32) / 80, 8)
    assert found.mean_quantized_weight_bits == 8


def test_a_network_with_nothing_quantized_is_float() -> None:
    graph = network()
    placement = place_quantizers(graph, excluded=list(graph.nodes))
    found = count_costs(graph, placement, Bits({}, {}))
    macs = sum(node.macs for node in graph.nodes.values())
    assert (found.bops, found.mean_weight_bits, found.mean_act_bits) == (macs * 32 * 32, 32, 32)
    assert found.size_mib == 80 * 4 / 2**20


@pytest.mark.parametrize(
    "excluded", [[], ["fc"], ["x"], ["matmul", "conv"], ["x", "fc"]], ids=lambda e: "-".join(e) or "all"
)
@pytest.mark.parametrize("seed", range(5))
def test_limits_count_what_costs_says(excluded: list[str], seed: int) -> None:
    graph = network()
    placement = place_quantizers(graph, excluded=excluded)
    choice = np.random.default_rng(seed).integers(0, len(WIDTHS), len(decisions(placement)))
    told = count_costs(
        graph, placement, Bits.of(placement, [WIDTHS[option] for option in choice]), other_parameters=7
    )
    assert size_limit(graph, placement, WIDTHS, other_parameters=7).value(choice) == told.size_mib
    assert bops_limit(graph, placement, WIDTHS).value(choice) == told.bops
    weights, activations = mean_bits_limits(graph, placement, WIDTHS)
    assert weights.value(choice) == pytest.approx(told.mean_weight_bits, rel=1e-12)
    assert activations.value(choice) == pytest.approx(told.mean_act_bits, rel=1e-12)


def test_decisions_are_weights_then_grids_and_ties_count_on() -> None:
    placement = place_quantizers(network())
    names = decisions(placement)
    assert names[:2] == ("conv.weight", "fc.weight")
    assert [[names[i] for i in group] for group in ties(placement)] == [["relu", "conv_dup1"]]


def test_a_shared_weight_is_one_decision_with_two_products() -> None:
    placement = place_quantizers(network())
    names = decisions(placement)
    read = [(p.layer, names[p.second or 0]) for p in products(network(), placement) if p.first == 0]
    assert read == [("conv", "x"), ("conv_dup1", "relu")]


BY_WIDEST = """layer,bits,latency
conv,4,1
conv,8,3
conv_dup1,4,2
conv_dup1,8,5
fc,4,10
fc,8,20
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(BY_WIDEST, encoding="utf-8")
    return path


def test_a_kernel_runs_at_the_wider_of_its_two_widths(table: Path) -> None:
    graph, widths = network(), [4, 8]
    placement = place_quantizers(graph)
    limit = latency_limit(read_latency(table, graph), graph, placement, widths, 30)
    wide = dict.fromkeys(decisions(placement), 0)
    for changed, expected in [
        ({}, 13),
        ({"x": 1}, 15),
        ({"conv.weight": 1}, 18),
        ({"fc.weight": 1, "square": 1}, 23),
    ]:
        assert limit.value(list((wide | changed).values())) == expected


def test_a_table_of_both_widths_gives_each_pair_its_latency(table: Path) -> None:
    lines = ["layer,weight_bits,act_bits,latency"]
    lines += [f"{layer},{w},{a},{w + a / 100}" for layer in ("conv", "conv_dup1", "fc") for w, a in ((4, 8), (8, 8))]
    table.write_text("\n".join(lines), encoding="utf-8")
    graph = network()
    placement = place_quantizers(graph)
    limit = latency_limit(read_latency(table, graph), graph, placement, [4, 8])
    assert limit.value([0, 1, 1, 1, 1, 1, 1, 1, 1]) == pytest.approx(2 * 4.08 + 8.08)
    assert limit.value([0, 1, 0, 1, 1, 1, 1, 1, 1]) == np.inf


def test_what_is_not_quantized_needs_a_row_at_32_bits(table: Path) -> None:
    graph = network()
    placement = place_quantizers(graph, excluded=["fc"])
    with pytest.raises(OptionError, match=r"no row for 'fc' at 32 × 4/8 bits"):
        latency_limit(read_latency(table, graph), graph, placement, [4, 8])
    table.write_text(BY_WIDEST + "fc,32,70\n", encoding="utf-8")
    limit = latency_limit(read_latency(table, graph), graph, placement, [4, 8])
    assert limit.value([0] * len(decisions(placement))) == 73


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cnv,4,1", r"table.csv:8: no layer with a weight named 'cnv'; nearest is 'conv'"),
        ("conv,4,2", r"table.csv:8: a second row for 'conv'"),
        ("conv,6,-2", r"table.csv:8: latency '-2'"),
        ("conv,6,nan", r"table.csv:8: latency 'nan'"),
        ("conv,6,fast", r"table.csv:8: latency 'fast'"),
        ("conv,6,5e-324", r"table.csv:8: latency '5e-324' is not from 1e-12 to 1e\+12: take another unit"),
        ("conv,6,1e308", r"table.csv:8: latency '1e308' is not from"),
        ("conv,17,1", r"table.csv:8: '17' bits: widths run from 2 to 16"),
        ("conv,six,1", r"table.csv:8: 'six' bits"),
        ("conv,6", r"table.csv:8: 2 cells, but 3 columns"),
    ],
    ids=["name", "duplicate", "negative", "nan", "word", "tiny", "huge", "wide", "not a width", "short"],
)
def test_a_wrong_row_is_an_error_with_its_line(table: Path, line: str, message: str) -> None:
    table.write_text(BY_WIDEST + line + "\n", encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        read_latency(table, network())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            BY_WIDEST.replace("fc,", "conv_dup1,")
            .replace("dup1,4,10", "dup1,6,10")
            .replace("dup1,8,20", "dup1,10,1"),
            "no row for layer 'fc'; nearest is",
        ),
        ("layer,width,latency\n", r"table.csv:1: the columns are layer, width, latency; they must be layer, bits"),
        ("", "table.csv:1: the columns are missing"),
    ],
    ids=["layer missing", "columns", "empty"],
)
def test_a_wrong_table_is_an_error(table: Path, text: str, message: str) -> None:
    table.write_text(text, encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        read_latency(table, network())


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"none\.csv: there is no such file$"):
        read_latency(tmp_path / "none.csv", network())
