"""The record of a ranking: what ``ranking.json`` must hold, by its version."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hessrank.errors import OutputError
from hessrank.files.paths import bounded_bytes
from hessrank.json_keys import unique_keys
from hessrank.text import brief, one_line
from hessrank.validation import Checksum, Count, Finite, Name, RecordPart, Whole, validate

SCHEMA_VERSION = 4  # 2: the record holds the graph; 3: and its masks; 4: and the table's checksum
TABLE_SHA256 = "table_sha256"
MOST_BYTES = 2**26
"""The largest table or record; ten thousand layers take a tenth of it."""

_REMEDY = "write it again with hessrank rank"
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


class LayerRecord(BaseModel):
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
    def _whole_weight(self) -> LayerRecord:
        given = self.model_fields_set & {"weight", "weight_numel", "channels"}
        if given and not {"weight", "weight_numel"} <= given:
            raise ValueError("weight and weight_numel belong together: one is missing")
        return self


class GraphFacts(RecordPart):
    """How the layers are connected."""

    layers: Annotated[dict[Name, LayerRecord], Field(min_length=1)]
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


class OptionFacts(RecordPart):
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


class ModelFacts(RecordPart):
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


class DataFacts(RecordPart):
    """What the samples were."""

    samples_used: Count
    sha256: Checksum


class EstimatorFacts(RecordPart):
    """Which layers one estimator did, and why."""

    estimator: str
    layers: Whole
    weights: Whole
    num_probes: Whole
    probed_at: str = ""
    why: str


class OrderFacts(RecordPart):
    """How far the order is settled."""

    stopped_by: str
    open_pairs: Whole
    of_pairs: Whole


class FromTrace(RecordPart):
    """Which increases follow from the traces alone."""

    layers: list[str]
    weights: list[str]
    why: str


class NotTrusted(RecordPart):
    """An increase that is not trusted."""

    layer: str
    tensor: str
    bits: Bits


class IncreaseFacts(RecordPart):
    """How the increases were found."""

    method: str
    bits: list[Bits]
    draws: Whole
    exact: bool = False
    from_trace: FromTrace
    measured: Whole = 0
    not_trusted: list[NotTrusted] = Field(default_factory=list)


class Record(RecordPart):
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


def refuse_foreign(path: Path) -> None:
    """Refuse to overwrite a file that is not the record of a ranking.

    Raises:
        OutputError: naming the file.
    """
    if not path.is_file():  # what else is there cannot be written over
        return
    try:
        held = json.loads(read_text(path))
    except (OutputError, ValueError, RecursionError):
        held = None
    if not (isinstance(held, dict) and {"schema_version", "layers"} <= held.keys()):
        raise OutputError(
            f"{path}: is no record of a ranking, and would be written over: give the table another name, or move it"
        )


def read_record(path: Path) -> tuple[dict[str, Any], Record] | None:
    """Return the record of a ranking as JSON and checked; None without a file.

    Raises:
        OutputError: no JSON, or a key is missing or holds what it cannot; the path of keys is named.
    """
    if not path.exists():
        return None
    text = read_text(path)
    try:
        info = json.loads(text, object_pairs_hook=unique_keys)
        json.dumps(info, ensure_ascii=False).encode()  # half a character pair is no text
    except (ValueError, RecursionError) as error:
        raise OutputError(f"{path}: not the record of a ranking ({one_line(error)}); {_REMEDY}") from error
    if not isinstance(info, dict):
        raise OutputError(f"{path}: not the record of a ranking, but a {type(info).__name__}; {_REMEDY}")
    version = info.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise OutputError(
            f"{path}: written by a newer hessrank (schema {brief(version)}, this one reads {SCHEMA_VERSION}); "
            "upgrade hessrank"
        )
    return info, validate(Record, info, source=str(path), error=OutputError, remedy=_REMEDY)


def check_against(record: Record, layers: list[str], numbers: list[str], path: Path) -> None:
    """Check that a record belongs to a table.

    Args:
        record: the record.
        layers: the table's, in the order of execution.
        numbers: names of its columns that hold numbers.
        path: of the record.

    Raises:
        OutputError: it is not.
    """
    if record.layers != len(layers):
        raise OutputError(f"{path}: layers: {record.layers}, but the table has {len(layers)} rows; {_REMEDY}")
    if record.options.by not in numbers:
        raise OutputError(f"{path}: options.by: the table has no numbers in a column {brief(record.options.by)}")
    if record.graph is None:
        return
    recorded = list(record.graph.layers)
    if recorded != layers:
        first = next(
            (pair for pair in zip(recorded, layers, strict=False) if pair[0] != pair[1]), (recorded[-1], layers[-1])
        )
        raise OutputError(
            f"{path}: graph.layers: {brief(first[0])} stands where the table has {brief(first[1])}; {_REMEDY}"
        )


def read_text(path: Path) -> str:
    """Return a file of text that is no larger than a ranking's can be.

    Raises:
        OutputError: no such file, not a regular one, too large, or no text in UTF-8.
    """
    try:
        return bounded_bytes(path, MOST_BYTES, "a ranking", error=OutputError).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OutputError(f"{path}: no text in UTF-8 (byte {error.start}): not a ranking") from error


def add_checksum(info: Mapping[str, Any], sha256: str) -> dict[str, Any]:
    """Return a record with the checksum of its table."""
    return {**{key: value for key, value in info.items() if key != TABLE_SHA256}, TABLE_SHA256: sha256}
