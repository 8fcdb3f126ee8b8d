"""What a ranking predicts for weights and grids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.hand_graphs import BITS, TWO_STAGES, U_NET, graph, ranking_of

from hessrank.errors import ModelError, OptionError
from hessrank.quant.bit_choice.predicted_increase import predict
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.layer_graph.quantizer_placement import place_quantizers


def test_weights_and_grids_have_the_increases_of_their_rows() -> None:
    ranking = ranking_of(TWO_STAGES, {"raw": 3.0, "A.act": 2.0}, {"A.mid": 5.0})
    predicted = predict(ranking, TWO_STAGES, place_quantizers(TWO_STAGES))
    assert predicted.bits == BITS
    np.testing.assert_allclose(predicted.grids["raw"], [3.0 * 4.0 ** (4 - b) for b in BITS])
    np.testing.assert_allclose(predicted.weights["A.mid.weight"], [5.0 * 4.0 ** (4 - b) for b in BITS])
    assert predicted.weights["B.mid.weight"].tolist() == [0.0] * len(BITS)


def test_a_shared_grid_is_as_coarse_as_the_widest_range_makes_it() -> None:
    """Two tensors on one grid over [-1, 3]: one of range 4 keeps its error, one of range 1 has 16 times its own."""
    nodes = dict(U_NET.nodes)
    nodes["relu1"] = replace(nodes["relu1"], low=-1.0, high=3.0)
    nodes["up"] = replace(nodes["up"], low=0.25, high=1.0)  # 0 is always on the grid
    made = Graph.of(nodes.values(), U_NET.outputs)
    predicted = predict(ranking_of(made, {"relu1": 1.0, "up": 2.0}), made, place_quantizers(made))
    assert predicted.grids["relu1"][predicted.at(4)] == pytest.approx(1.0 + 16 * 2.0)


def test_a_constant_tensor_does_not_change_the_others() -> None:
    nodes = dict(U_NET.nodes)
    nodes["up"] = replace(nodes["up"], low=0.0, high=0.0)
    made = Graph.of(nodes.values(), U_NET.outputs)
    predicted = predict(ranking_of(made, {"relu1": 1.0}), made, place_quantizers(made))
    assert predicted.grids["relu1"][predicted.at(4)] == 1.0


def test_the_total_is_the_sum() -> None:
    predicted = predict(ranking_of(U_NET, {"x": 1.0, "out": 2.0}, {"conv1": 4.0}), U_NET, place_quantizers(U_NET))
    weights = dict.fromkeys(predicted.weights, 4)
    grids = dict.fromkeys(predicted.grids, 4) | {"out": 6}
    assert predicted.total(weights, grids) == pytest.approx(1.0 + 2.0 / 16 + 4.0)


def test_a_negative_increase_counts_by_its_size() -> None:
    predicted = predict(ranking_of(U_NET, {"x": -1.0}), U_NET, place_quantizers(U_NET))
    assert predicted.grids["x"][predicted.at(4)] == 1.0


def test_a_weight_shared_by_calls_is_looked_up_once() -> None:
    made = graph("x input\nl Linear*l.weight x\nl_dup1 Linear*l.weight l", "l_dup1")
    predicted = predict(ranking_of(made, {}, {"l": 2.0}), made, place_quantizers(made))
    assert predicted.weights["l.weight"][predicted.at(4)] == 2.0


def test_bits_that_were_not_ranked_are_an_error_that_says_how_to_rank_them() -> None:
    predicted = predict(ranking_of(U_NET, {}), U_NET, place_quantizers(U_NET))
    with pytest.raises(OptionError, match="nothing for 5 bits, only for 2, 4, 6, 8, 10: rank again with --bits 5,2"):
        predicted.at(5)


def test_a_ranking_without_weight_traces_is_refused() -> None:
    ranking = ranking_of(U_NET, {})
    frame = ranking.to_frame()
    frame[[c for c in frame if c.startswith("weight_increase")]] = float("nan")
    with pytest.raises(ModelError, match="no trace of the weight of 'conv1': rank again without --no-weights"):
        predict(type(ranking)(frame, ranking.info), U_NET, place_quantizers(U_NET))
