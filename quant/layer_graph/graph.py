"""Describe the network as policies see it.

Which layer reads which, what has a weight, what an integer kernel would do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hessrank.analysis.result.ranking import Ranking
from hessrank.errors import ModelError, unknown_name

_SINCE_MASKS = 3  # version of a ranking's record


@dataclass(frozen=True)
class Node:
    """One layer and its place among the others.

    Attributes:
        name: as in the ranking.
        kind: class of the module, name of the function, or ``input``.
        inputs: names of the layers it reads, in the order of the arguments.
        shape: of one sample's activation; of the largest, where samples differ.
        numel: its number of elements; the mean over the samples.
        macs: multiply-accumulates for one sample; the mean over the samples.
        weight: name of the parameter it multiplies with, which calls of one module share; None without.
        weight_numel: that weight's number of elements.
        low: smallest value over the data.
        high: largest value over the data.
        inside: whether it lies within a module that torch.fx does not look into, where nothing can be inserted.
        masked: whether it holds masked scores (-inf, -10 000), which no grid does.
        channels: how many scales its weight has, with one for each output channel.
        float_weights: names of the weights that it multiplies with and that cannot be quantized.
        float_owner: path of the module that holds them; empty where a function is given them.
        why_float: why they cannot be quantized.
        reads: names of the other parameters and buffers that it reads.
        float_inputs: tensors that it multiplies with and that are no layer's, and why they lie on no grid.
        mode: how a padding or an interpolation fills in, as ``reflect`` or ``constant 0``.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    numel: int = 1
    macs: int = 0
    weight: str | None = None
    weight_numel: int = 0
    low: float = 0.0
    high: float = 0.0
    inside: bool = False
    masked: bool = False
    channels: int = 0
    float_weights: tuple[str, ...] = ()
    float_owner: str = ""
    why_float: str = ""
    reads: tuple[str, ...] = ()
    float_inputs: Mapping[str, str] = field(default_factory=dict)
    mode: str = ""


@dataclass(frozen=True)
class Graph:
    """All layers of a network in the order of execution.

    Attributes:
        nodes: by name.
        outputs: names of the layers that the network returns.
        opaque: paths of the modules whose weights are used in a way that cannot be looked into (LSTM, attention).
        stored: bytes of the parameters and buffers that layers read, but for weights that can be quantized; None
             if nobody knows, as in rankings before release 0.5.
        consumers: names of the layers that read each layer.
    """

    nodes: Mapping[str, Node]
    outputs: tuple[str, ...]
    opaque: tuple[str, ...] = ()
    stored: Mapping[str, int] | None = None
    consumers: Mapping[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        readers: dict[str, list[str]] = {name: [] for name in self.nodes}
        for node in self.nodes.values():
            for source in node.inputs:
                readers[source].append(node.name)
        object.__setattr__(self, "consumers", {name: tuple(found) for name, found in readers.items()})

    @classmethod
    def of(
        cls,
        nodes: Iterable[Node],
        outputs: Iterable[str],
        opaque: Iterable[str] = (),
        stored: Mapping[str, int] | None = None,
    ) -> Graph:
        """Build a graph of ``nodes`` in the order of execution."""
        return cls({node.name: node for node in nodes}, tuple(outputs), tuple(opaque), stored)

    @classmethod
    def of_ranking(cls, ranking: Ranking) -> Graph:
        """Read the graph that a ranking carries in its record.

        Raises:
            ModelError: the ranking was written without its record, or by a release that kept no graph.
        """
        told = ranking.info.get("graph")
        if not told:
            raise ModelError(
                "the ranking holds no graph of the network: keep ranking.json beside ranking.csv, "
                "or rank again with this release"
            )
        rows: dict[str, Any] = {str(row["layer"]): row for row in ranking.to_frame().to_dict("records")}
        if int(ranking.info.get("schema_version", 0)) < _SINCE_MASKS:
            filled = {name for name, row in rows.items() if row["kind"] in ("masked_fill", "masked_fill_")}
            layers = told["layers"].items()
            told = {**told, "layers": {n: {**f, "masked": -math.inf} if n in filled else f for n, f in layers}}
        return cls.described(told, rows)

    @classmethod
    def described(cls, told: Mapping[str, Any], rows: Mapping[str, Mapping[Any, Any]]) -> Graph:
        """Build the graph of a description, as a ranking's record holds it.

        Args:
            told: what :func:`hessrank.analysis.result.assemble.describe_graph` returns.
            rows: each layer's ``kind``, ``shape`` (``3x8x8``), ``numel`` and ``macs``.
        """

        def node(name: str, facts: Mapping[str, Any]) -> Node:
            row = rows[name]
            return Node(
                name,
                kind=row["kind"],
                inputs=tuple(facts["inputs"]),
                shape=tuple(int(part.rpartition("-")[2]) for part in str(row["shape"]).split("x")),
                numel=round(row["numel"]),
                macs=round(row["macs"]),
                weight=facts.get("weight"),
                weight_numel=facts.get("weight_numel", 0),
                low=facts["range"][0],
                high=facts["range"][1],
                inside=facts.get("inside", False),
                masked="masked" in facts,
                channels=facts.get("channels", 0),
                float_weights=tuple(facts.get("float_weights", ())),
                float_owner=facts.get("float_owner", ""),
                why_float=facts.get("why_float", ""),
                reads=tuple(facts.get("reads", ())),
                float_inputs=facts.get("float_inputs", {}),
                mode=facts.get("mode", ""),
            )

        nodes = (node(name, facts) for name, facts in told["layers"].items())
        return cls.of(nodes, told["outputs"], told.get("opaque", ()), told.get("stored"))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the network's inputs."""
        return tuple(name for name, node in self.nodes.items() if node.kind == "input")

    def __getitem__(self, name: str) -> Node:
        """Return a layer by name.

        Raises:
            UnknownNameError: there is no such layer; the nearest names are listed.
        """
        if name not in self.nodes:
            raise unknown_name("layer", name, self.nodes)
        return self.nodes[name]
