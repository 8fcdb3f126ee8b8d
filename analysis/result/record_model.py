"""The model of a ranking record: what ``ranking.json`` must hold, by its version."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hessrank.text import brief
from hessrank.validation import Checksum, Count, Finite, Name, Told, Whole

SCHEMA_VERSION = 4  # 2: the record holds the graph; 3: and its masks; 4: and the table's checksum
TABLE_SHA256 = "table_sha256"

_SINCE = {"graph": 2, TABLE_SHA256: 4, "increases": 4}  # version from which a key is always there


def _ordered(values: list[float]) -> list[float]:
    if values[0] > values[1]:
        raise ValueError(f"{values} are not the smallest and the largest value")
    return values


def _no_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError("is not a number")
    return value


Bits = Annotated[int, Field(ge=2, le=16)]
Range = Annotated[list[Finite], Field(min_length=2, max_length=2), AfterValidator(_ordered)]


class LayerFacts(BaseModel):
    """What the record says about one layer of the graph.

    :func:`hessrank.analysis.result.assemble.describe_graph` writes it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    inputs: list[Name]
    range: Range
    weight: Name = "none"
    weight_numel: Count = 1
    channels: Count = 1
    inside: bool = False
    masked: Annotated[float, AfterValidator(_no_nan)] = 0.0
    float_weights: list[Name] = Field(default_factory=list)
    float_owner: str = ""
    why_float: str = ""
    reads: list[Name] = Field(default_factory=list)
    float_inputs: dict[Name, str] = Field(default_factory=dict)
    mode: str = ""

    @model_validator(mode="after")
    def _whole_weight(self) -> LayerFacts:
        given = self.model_fields_set & {"weight", "weight_numel", "channels"}
        if given and not {"weight", "weight_numel"} <= given:
            raise ValueError("weight and weight_numel belong together: one is missing")
        return self


class GraphFacts(Told):
    """How the layers are connected."""

    layers: Annotated[dict[Name, LayerFacts], Field(min_length=1)]
    outputs: list[Name]
    opaque: list[str] = Field(default_factory=list)
    stored: dict[str, Whole] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _hangs_together(self) -> GraphFacts:
        before: set[str] = set()
        sizes: dict[str, int] = {}
        for name, facts in self.layers.items():
            for source in facts.inputs:
                if source not in before:
                    raise ValueError(f"layers.{name}.inputs: {brief(source)} is no layer before it")
            for weight in facts.float_weights:
                if weight not in self.stored:
                    raise ValueError(f"layers.{name}.float_weights: {brief(weight)} is not among stored")
            if "weight" in facts.model_fields_set:
                numel = sizes.setdefault(facts.weight, facts.weight_numel)
                if numel != facts.weight_numel:
                    raise ValueError(f"layers.{name}.weight_numel: {facts.weight!r} had {numel} elements before")
            before.add(name)
        for name in self.outputs:
            if name not in before:
                raise ValueError(f"outputs: {brief(name)} is no layer")
        return self


class OptionFacts(Told):
    """What was asked for."""

    by: Name
    batch_size: Count = 1
    max_probes: Count = 1
    tolerance: Finite = 0.1
    seed: Whole = 0
    bits: list[Bits] = Field(default_factory=list)
    weights: bool = True
    increase_probes: Whole = 0
    precision: str = ""


class ModelFacts(Told):
    """What was ranked; from ``path`` on only where it came from a file."""

    class_: str = Field(alias="class")
    parameters: Whole
    weights_sha256: Checksum
    path: str = ""
    sha256: str = ""
    format: str = ""
    arch: str | None = None
    arch_args: dict[str, Any] = Field(default_factory=dict)
    weights_key: str | None = None
    ignored_keys: list[str] = Field(default_factory=list)


class DataFacts(Told):
    """What the samples were."""

    samples_used: Count
    sha256: Checksum


class EstimatorFacts(Told):
    """Which layers one estimator did, and why."""

    estimator: str
    layers: Whole
    weights: Whole
    num_probes: Whole
    probed_at: str = ""
    why: str


class OrderFacts(Told):
    """How far the order is settled."""

    stopped_by: str
    open_pairs: Whole
    of_pairs: Whole


class FromTrace(Told):
    """Which increases follow from the traces alone."""

    layers: list[str]
    weights: list[str]
    why: str


class NotTrusted(Told):
    """An increase that is not trusted."""

    layer: str
    tensor: str
    bits: Bits


class IncreaseFacts(Told):
    """How the increases were found."""

    method: str
    bits: list[Bits]
    draws: Whole
    exact: bool = False
    from_trace: FromTrace
    measured: Whole = 0
    not_trusted: list[NotTrusted] = Field(default_factory=list)


class Record(Told):
    """All that ``ranking.json`` holds."""

    schema_version: Count
    layers: Count
    loss: Name
    loss_detail: str = ""
    seed: Whole
    options: OptionFacts
    model: ModelFacts
    data: DataFacts
    estimators: list[EstimatorFacts]
    order: OrderFacts
    versions: dict[str, str]
    command: str
    warnings: list[str]
    increases: IncreaseFacts | None = None
    graph: GraphFacts | None = None
    table_sha256: Checksum | None = None
    study: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole_for_its_version(self) -> Record:
        for key, since in _SINCE.items():
            if self.schema_version >= since and getattr(self, key) is None:
                raise ValueError(f"{key}: is missing")
        return self
