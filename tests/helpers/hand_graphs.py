"""Graphs written down by hand, and a ranking to go with them."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.result.ranking_table import COLUMNS
from hessrank.quant.layer_graph.graph import Graph, Node

BITS = (2, 4, 6, 8, 10)


def graph(text: str, *outputs: str, **numbers: Mapping[str, float]) -> Graph:
    """Build a graph of lines ``name kind inputs…``; a kind that ends in ``*weight`` multiplies with that weight.

    Args:
        text: a layer a line, in the order of execution.
        outputs: names of the layers that are returned.
        numbers: fields of nodes, as ``macs={"conv": 10}``.
    """
    nodes = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, kind, *inputs = line.split()
        kind, _, weight = kind.partition("*")
        fields = {field: values[name] for field, values in numbers.items() if name in values}
        if weight:
            fields.setdefault("weight_numel", 100)
        fields.setdefault("high", 1.0)
        nodes.append(Node(name, kind, tuple(inputs), weight=weight or None, **fields))  # type: ignore[arg-type]
    return Graph.of(nodes, outputs)


U_NET = graph(
    """
    x          input
    conv1      Conv2d*conv1.weight   x
    relu1      ReLU                  conv1
    pool       MaxPool2d             relu1
    conv2      Conv2d*conv2.weight   pool
    relu2      ReLU                  conv2
    up         ConvTranspose2d*up.weight relu2
    cat        cat                   up relu1
    out        Conv2d*out.weight     cat
    """,
    "out",
)
RESIDUAL = graph(
    """
    x      input
    conv1  Conv2d*conv1.weight  x
    bn1    BatchNorm2d          conv1
    relu   ReLU                 bn1
    conv2  Conv2d*conv2.weight  relu
    bn2    BatchNorm2d          conv2
    add    add                  bn2 relu
    relu_dup1 ReLU              add
    avg    AdaptiveAvgPool2d    relu_dup1
    flat   flatten              avg
    fc     Linear*fc.weight     flat
    """,
    "fc",
)
TWO_STAGES = graph(
    """
    raw        input
    A.first    Conv2d*A.first.weight   raw
    A.act      LeakyReLU               A.first
    A.mid      Conv2d*A.mid.weight     A.act
    A.act_dup1 LeakyReLU               A.mid
    A.last     Conv2d*A.last.weight    A.act_dup1
    down       PixelUnshuffle          raw
    down_dup1  PixelUnshuffle          A.last
    B.left     Conv2d*B.left.weight    down
    B.right    Conv2d*B.right.weight   down_dup1
    cat        cat                     B.left B.right
    B.mid      Conv2d*B.mid.weight     cat
    B.act      LeakyReLU               B.mid
    B.last     Conv2d*B.last.weight    B.act
    up         PixelShuffle            B.last
    """,
    "A.last",
    "up",
)


def ranking_of(
    made: Graph, increases: Mapping[str, float], weight_increases: Mapping[str, float] | None = None
) -> Ranking:
    """Return a ranking of a graph by hand: increases at 4 bits by layer, a quarter of it for every bit more.

    Args:
        made: the graph.
        increases: predicted increase at 4 bits of each layer's activation; 0 where not named.
        weight_increases: the same of each weight, by the first layer that uses it; 0 where not named.
    """
    weight_increases = weight_increases or {}
    rows, seen = [], set()
    for index, node in enumerate(made.nodes.values()):
        first = node.weight is not None and node.weight not in seen
        seen.add(node.weight)
        row: dict[str, object] = dict.fromkeys(COLUMNS, 0)
        row |= {"layer": node.name, "kind": node.kind, "execution_index": index, "numel": node.numel}
        row |= {"shape": "x".join(map(str, node.shape)) or "1", "macs": node.macs, "estimator": "exact"}
        trace = increases.get(node.name, 0.0) * 100
        row |= {"trace": trace, "ci_low": trace, "ci_high": trace, "num_samples": 1, "converged": True}
        row |= {"act_measured": "", "weight_measured": "", "probed_at": ""}
        for b in BITS:
            row[f"act_increase_b{b}"] = increases.get(node.name, 0.0) * 4.0 ** (4 - b)
            weight = weight_increases.get(node.name, 0.0) if first else float("nan")
            row[f"weight_increase_b{b}"] = weight * 4.0 ** (4 - b)
        rows.append(row)
    frame = pd.DataFrame(rows).sort_values("trace", ascending=False, kind="stable", ignore_index=True)
    for column in ("rank", "rank_low", "rank_high"):
        frame[column] = range(1, len(frame) + 1)
    layers = {
        node.name: {"inputs": list(node.inputs), "range": [node.low, node.high]}
        | ({"weight": node.weight, "weight_numel": node.weight_numel} if node.weight else {})
        | ({"inside": True} if node.inside else {})
        for node in made.nodes.values()
    }
    total = sum({n.weight: n.weight_numel for n in made.nodes.values() if n.weight}.values())
    info = {
        "schema_version": 2,  # of the releases that wrote no more than this
        "layers": len(rows),
        "loss": "self",
        "seed": 0,
        "options": {"by": "trace"},
        "model": {"class": "ByHand", "parameters": total, "weights_sha256": "0" * 64},
        "data": {"samples_used": 1, "sha256": "0" * 64},
        "estimators": [],
        "order": {"stopped_by": "exact", "open_pairs": 0, "of_pairs": len(rows) - 1},
        "versions": {},
        "command": "",
        "warnings": [],
        "graph": {"layers": layers, "outputs": list(made.outputs)},
    }
    return Ranking(frame, info)
