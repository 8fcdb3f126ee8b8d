"""Sub-networks as a ranking's record tells them; the rule itself is tested with graphs by hand, in tests/quant."""

import pytest
from helpers.hand_graphs import RESIDUAL, TWO_STAGES, U_NET, ranking_of

from hessrank.network.sub_networks import recorded_sub_networks, sub_networks
from hessrank.quant.layer_graph.graph import Graph


@pytest.mark.parametrize("made", [TWO_STAGES, U_NET, RESIDUAL], ids=["two stages", "u-net", "residual"])
def test_the_record_tells_what_the_graph_tells(made: Graph) -> None:
    ranking = ranking_of(made, {})
    kinds = {name: ranking[name]["kind"] for name in ranking}
    assert recorded_sub_networks(ranking.info["graph"], kinds) == sub_networks(made)


def test_without_a_graph_there_are_none() -> None:
    assert recorded_sub_networks(None, {}) == []
