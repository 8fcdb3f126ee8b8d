"""Reads and checks the record of a ranking, ``ranking.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from hessrank.analysis.result.record_model import SCHEMA_VERSION, TABLE_SHA256, Record
from hessrank.errors import OutputError
from hessrank.files.paths import bounded_bytes
from hessrank.text import brief, one_line
from hessrank.validation import checked

MOST_BYTES = 2**26
"""The largest table or record; ten thousand layers take a tenth of it."""

_REMEDY = "write it again with hessrank rank"


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
        info = json.loads(text, object_pairs_hook=_each_once)
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
    return info, checked(Record, info, source=str(path), error=OutputError, remedy=_REMEDY)


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


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(one for one, two in pairwise(sorted(key for key, _ in pairs)) if one == two)
        raise ValueError(f"the key {brief(twice)} is there twice")
    return found


def add_checksum(info: Mapping[str, Any], sha256: str) -> dict[str, Any]:
    """Return a record with the checksum of its table."""
    return {**{key: value for key, value in info.items() if key != TABLE_SHA256}, TABLE_SHA256: sha256}
