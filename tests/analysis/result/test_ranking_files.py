"""What the files of a ranking may hold: every field and cell spoiled in turn is one line, or changes nothing."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.hand_graphs import U_NET, ranking_of
from hypothesis import given, settings
from hypothesis import strategies as st

from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.result.ranking_record import Record
from hessrank.errors import HessrankError, OutputError

Steps = tuple[str | int, ...]
REMOVED = object()
ODD: list[Any] = [
    REMOVED,
    None,
    True,
    -1,
    0,
    2**70,
    10**30,
    float("nan"),
    float("inf"),
    0.5,
    "",
    "x",
    "\ud800",
    [],
    {},
]
ODD += [[[]], ["x"], {"x": 1}, [1, 2, 3], [float("inf"), 0]]
CELLS = ["", "x", "-1", "0", "1.5", "nan", "NaN", "inf", "-inf", "1e999", "0x10", "1_000", "1,000", " 1", "١", "True"]
CELLS += ["9" * 40, "3x", "3x0-2", "[/x]", "\x1b[31m", "\0", "=1+1"]


def full() -> Ranking:
    """Return a ranking whose record has every key that there is."""
    made = ranking_of(U_NET, {"out": 4.0, "conv1": 1.0}, {"conv1": 2.0})
    info = copy.deepcopy(made.info)
    frame = made.to_frame()
    frame.loc[0, "act_measured"], frame["probed_at"] = "2 4", "output"
    info |= {"schema_version": 4, "loss_detail": "KL", "study": {"bits": [4]}, "warnings": ["a note"]}
    info["options"] |= {"bits": [2, 4], "tolerance": 0.1, "precision": "32"}
    info["model"] |= {"path": "m.pth", "arch": None, "arch_args": {"width": 4}, "ignored_keys": ["a"]}
    info["estimators"] = [{"estimator": "exact", "layers": 9, "weights": 4, "num_probes": 3, "why": "few outputs"}]
    info["versions"] = {"hessrank": "0.5.0"}
    info["increases"] = {
        "method": "rounding errors",
        "bits": [2, 4],
        "draws": 7,
        "exact": False,
        "from_trace": {"layers": ["out"], "weights": [], "why": "because"},
        "measured": 2,
        "not_trusted": [{"layer": "out", "tensor": "activation", "bits": 2}],
    }
    conv = info["graph"]["layers"]["conv2"]
    conv |= {"channels": 4, "reads": ["conv2.bias"], "inside": False, "masked": float("-inf"), "mode": "reflect"}
    conv |= {"float_weights": ["w"], "float_owner": "m", "why_float": "so", "float_inputs": {"t": "no grid"}}
    info["graph"] |= {"opaque": ["lstm"], "stored": {"conv2.bias": 16, "w": 4}}
    return Ranking(frame, info)


RANKING = full()


def paths_of(value: Any, before: Steps = ()) -> Iterator[Steps]:
    """Yield the paths of all values in a record but the root; one layer and one item of a list stand for all."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if before == ("graph", "layers") and key not in ("x", "conv2", "cat"):
            continue
        yield (*before, key)
        yield from paths_of(inner, (*before, key))


def spoiled(record: Any, path: Steps, value: Any) -> Any:
    """Return a copy with another value, or without the key, at a path."""
    record = copy.deepcopy(record)
    inner = record
    for step in path[:-1]:
        inner = inner[step]
    if value is REMOVED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return record


def written(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write the ranking into a folder; return the table's path and the record."""
    RANKING.to_csv(folder / "r.csv")
    return folder / "r.csv", json.loads((folder / "r.json").read_text(encoding="utf-8"))


def read_back(path: Path) -> Ranking | None:
    """Read; None for the one line that refuses it."""
    message = ""
    try:
        return Ranking.read(path)
    except HessrankError as error:
        message = str(error)
    assert str(path.parent) in message
    assert "\n" not in message
    return None


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Return the table as it is read back."""
    return Ranking.read(written(tmp_path_factory.mktemp("good"))[0]).to_frame()


PATHS = list(paths_of({**RANKING.info, "table_sha256": "0" * 64}))


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=[".".join(map(str, path)) for path in PATHS])
def test_every_key_of_the_record_is_checked(tmp_path: Path, path: Steps, frame: pd.DataFrame) -> None:
    table, record = written(tmp_path)
    for value in ODD:
        bad = spoiled(record, path, value)
        (tmp_path / "r.json").write_text(json.dumps(bad), encoding="utf-8")
        found = read_back(table)
        if found is not None:
            assert found.to_frame().equals(frame)
            assert str(found)


@pytest.mark.parametrize("name", list(RANKING.to_frame().columns))
def test_every_cell_of_the_table_is_checked(tmp_path: Path, name: str) -> None:
    table, _ = written(tmp_path)
    (tmp_path / "r.json").unlink()
    rows = list(csv.reader(table.read_text().splitlines()))
    column = rows[0].index(name)
    for cell in CELLS:
        changed = [list(row) for row in rows]
        changed[2][column] = cell
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(changed)
        table.write_text(text.getvalue())
        found = read_back(table)
        if found is not None:
            value = found.to_frame()[name].tolist()[1]
            assert str(value) == cell or (cell == "" and math.isnan(value)) or float(value) == float(cell)


@pytest.mark.slow
@settings(derandomize=True, max_examples=100, deadline=None)
@given(place=st.integers(0, 10**6), gone=st.integers(0, 40), put=st.binary(max_size=12), record=st.booleans())
def test_any_bytes_are_one_line_or_the_same_ranking(
    tmp_path_factory: pytest.TempPathFactory, place: int, gone: int, put: bytes, record: bool, frame: pd.DataFrame
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    table, _ = written(folder)
    file = table.with_suffix(".json") if record else table
    content = file.read_bytes()
    place %= len(content)
    file.write_bytes(content[:place] + put + content[place + gone :])
    found = read_back(table)
    if found is not None:
        assert found.to_frame().equals(frame)


WRONG_RECORDS: dict[str, tuple[Steps, Any, str]] = {
    "of a newer release": (("schema_version",), 99, r"newer hessrank \(schema 99, this one reads 4\); upgrade"),
    "a range that is no number": (("graph", "layers", "conv2", "range"), [0, "1"], r"conv2\.range.*'1' is not a num"),
    "a range the wrong way round": (("graph", "layers", "conv2", "range"), [1, 0], r"graph\.layers\.conv2\.range"),
    "a layer that reads a later one": (
        ("graph", "layers", "conv1", "inputs"),
        ["out"],
        "'out' is no layer bef",
    ),
    "an output that is none": (("graph", "outputs"), ["oot"], "graph: outputs: 'oot' is no layer"),
    "a weight of no size": (("graph", "layers", "conv2", "weight_numel"), REMOVED, "belong together"),
    "a weight that is not stored": (("graph", "stored", "w"), REMOVED, "'w' is not among stored"),
    "a key that nobody knows": (("graph", "layers", "conv2", "wieght"), "w", "wieght: there is no such key"),
    "a layer less": (("graph", "layers", "out"), REMOVED, "graph: outputs: 'out' is no layer"),
    "no checksum": (("table_sha256",), REMOVED, "table_sha256: is missing"),
    "no graph": (("graph",), REMOVED, "graph: is missing"),
    "another count": (("layers",), 3, "layers: 3, but the table has 9 rows"),
    "ranked by no column": (("options", "by"), "tarce", "no numbers in a column 'tarce'"),
    "a note that is none": (("warnings",), [1], r"warnings\.0: 1 is not a text"),
    "half a character": (("loss",), "\ud800", "surrogates not allowed"),
}


@pytest.mark.parametrize(("path", "value", "message"), WRONG_RECORDS.values(), ids=WRONG_RECORDS.keys())
def test_a_record_that_cannot_be_says_where(tmp_path: Path, path: Steps, value: Any, message: str) -> None:
    table, record = written(tmp_path)
    (tmp_path / "r.json").write_text(json.dumps(spoiled(record, path, value)), encoding="utf-8")
    with pytest.raises(OutputError, match=rf"r\.json: .*{message}"):
        Ranking.read(table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not the record of a ranking"),
        ("[1]", "but a list"),
        ('{"loss": 1, "loss": 2}', "the key 'loss' is there twice"),
        ("[" * 10**5, "not the record of a ranking"),
        ("\0", "not the record of a ranking"),
        ('{"seed": ' + "9" * 5000 + "}", "not the record of a ranking"),
    ],
    ids=["cut off", "a list", "a key twice", "deep", "a zero byte", "a number of 5000 digits"],
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: str, message: str) -> None:
    table, _ = written(tmp_path)
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(OutputError, match=rf"r\.json: .*{message}"):
        Ranking.read(table)


def _cell(row: int, column: str, value: str) -> Callable[[str], bytes]:
    def change(text: str) -> bytes:
        rows = list(csv.reader(text.splitlines()))
        rows[row][rows[0].index(column)] = value
        return "\n".join(",".join(cells) for cells in rows).encode()

    return change


WRONG_TABLES: dict[str, tuple[Callable[[str], bytes], str]] = {
    "no number": (_cell(2, "trace", "1,0"), r"r\.csv:3: \d+ cells, but \d+ columns"),
    "no finite number": (_cell(2, "trace", "inf"), r"r\.csv:3: trace: 'inf' is not a finite number"),
    "hexadecimal": (_cell(4, "numel", "0x10"), r"r\.csv:5: numel: '0x10' is not a finite number"),
    "half a probe": (_cell(4, "num_probes", "1.5"), r"r\.csv:5: num_probes: '1\.5' is not a whole number"),
    "no shape": (_cell(3, "shape", "3x3x"), r"r\.csv:4: shape: '3x3x' is not a shape"),
    "a span the wrong way round": (_cell(3, "shape", "3x5-3"), r"r\.csv:4: shape: .*5-3 does not run upwards"),
    "a layer twice": (_cell(3, "layer", "out"), r"r\.csv:4: layer: 'out' is there twice"),
    "a rank twice": (_cell(3, "rank", "2"), r"r\.csv:4: rank: 2 is not the next one"),
    "a rank outside of its interval": (_cell(3, "rank_low", "5"), r"r\.csv:4: rank: 3 does not lie between"),
    "a rank beyond the last": (_cell(3, "rank_high", "50"), r"r\.csv:4: rank_high: 50 is more than 9"),
    "one rank interval missing": (_cell(3, "rank_low", ""), r"r\.csv:4: rank_low: nan is missing"),
    "a trace outside of its interval": (_cell(3, "ci_low", "7"), r"r\.csv:4: trace: .* does not lie between ci_low"),
    "an order twice": (_cell(3, "execution_index", "8"), r"r\.csv:4: execution_index: 8 is there twice"),
    "measured at no width": (_cell(3, "act_measured", "3"), r"r\.csv:4: act_measured: '3' has no column"),
    "measured at no number": (_cell(3, "weight_measured", "4;6"), r"weight_measured: '4;6' is not a list of bit-w"),
    "neither true nor false": (_cell(3, "converged", "yes"), r"converged: 'yes' is neither True nor False"),
    "a column twice": (_cell(0, "trace", "sem"), "column 'trace' is missing"),
    "bits twice": (_cell(0, "act_increase_b2", "act_increase_b4"), "'act_increase_b4' is there twice"),
    "bits beyond 16": (_cell(0, "act_increase_b2", "act_increase_b17"), "'act_increase_b17' is no column"),
    "bits of weights alone": (_cell(0, "act_increase_b2", "act_increase_b3"), "increases at [23] bits have one col"),
    "UTF-16": (lambda text: text.encode("utf-16"), "no text in UTF-8"),
    "a zero byte": (lambda text: text.replace("conv1", "con\0v1").encode(), r"r\.csv:\d+: holds a zero byte"),
    "an open quote": (lambda text: text.replace("conv1", '"conv1').encode(), r"r\.csv:\d+: .*: not a ranking"),
    "trailing garbage": (lambda text: (text + "the end\n").encode(), r"r\.csv:11: 1 cells, but \d+ columns"),
    "a million columns": (lambda text: text.encode().replace(b"\n", b"," * 10**6 + b"\n", 1), "'' is no column"),
    "no rows": (lambda text: text.splitlines()[0].encode(), "incomplete, there is no layer in it"),
}


@pytest.mark.parametrize(("change", "message"), WRONG_TABLES.values(), ids=WRONG_TABLES.keys())
def test_a_table_that_cannot_be_says_where(tmp_path: Path, change: Callable[[str], bytes], message: str) -> None:
    table, _ = written(tmp_path)
    (tmp_path / "r.json").unlink()
    table.write_bytes(change(table.read_text()))
    with pytest.raises(OutputError, match=message):
        Ranking.read(table)


def test_a_table_larger_than_any_ranking_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "r.csv").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OutputError, match=r"r\.csv: larger than 64 MiB: not a ranking"):
        Ranking.read(tmp_path / "r.csv")


@pytest.mark.parametrize("path", ["/dev/full", "/dev/zero", "fifo", ".", ""])
def test_what_is_no_file_is_not_read(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    with pytest.raises(OutputError, match=r"not a regular file|this is a folder|a path is empty"):
        Ranking.read(path)


def test_what_spreadsheets_do_to_a_table_is_read(tmp_path: Path, frame: pd.DataFrame) -> None:
    table, _ = written(tmp_path)
    (tmp_path / "r.json").unlink()
    text = table.read_text().replace("True", "TRUE").replace("\n", "\r\n")
    table.write_bytes(b"\xef\xbb\xbf" + text.encode())
    pd.testing.assert_frame_equal(Ranking.read(table).to_frame(), frame)


@pytest.mark.parametrize("name", ["NA", "nan", "None", 'a"b', "a,b", "a\nb", "in", "=1+1", "1", "ü"])
def test_any_name_of_a_layer_comes_back(tmp_path: Path, name: str) -> None:
    frame = RANKING.to_frame()
    frame.loc[0, "layer"] = name
    Ranking(frame, {}).to_csv(tmp_path / "r.csv")
    assert not (tmp_path / "r.json").exists()
    assert next(iter(Ranking.read(tmp_path / "r.csv"))) == name


def test_an_infinite_increase_comes_back(tmp_path: Path) -> None:
    frame = RANKING.to_frame()
    frame.loc[0, "act_increase_b2"] = float("inf")
    Ranking(frame, RANKING.info).to_csv(tmp_path / "r.csv")
    found = Ranking.read(tmp_path / "r.csv").sorted_by("act_increase_b2")
    assert found.to_frame()["act_increase_b2"].tolist()[0] == float("inf")
    assert "inf" in str(found)


def test_a_table_and_another_ones_record_are_told_apart(tmp_path: Path) -> None:
    table, _ = written(tmp_path)
    apart = rf"{re.escape(str(table))} and .*r\.json do not belong together"
    table.write_text(table.read_text().replace("input", "Input"))
    with pytest.raises(OutputError, match=rf"{apart}.*write both again .*, or remove .*r\.json"):
        Ranking.read(table)
    (tmp_path / "r.csv.partial").touch()
    with pytest.raises(OutputError, match=rf"{apart}.*run the same command again with --resume"):
        Ranking.read(table)
    (tmp_path / "r.json").unlink()
    assert Ranking.read(table).info == {}


def test_the_record_appears_before_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    replace = os.replace

    def noted(source: Any, target: Any, **_: Any) -> None:
        names.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    written(tmp_path)
    assert names == ["r.json", "r.csv"]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_rankings_of_older_releases_are_read(tmp_path: Path, version: int) -> None:
    frame = RANKING.to_frame().drop(columns=["probed_at", "act_measured", "weight_measured"])
    table, record = written(tmp_path)
    gone = {"table_sha256", "increases"} | ({"graph"} if version == 1 else set())
    old = {key: value for key, value in record.items() if key not in gone} | {"schema_version": version}
    frame.to_csv(table, index=False)
    (tmp_path / "r.json").write_text(json.dumps(old), encoding="utf-8")
    found = Ranking.read(table)
    assert found.info == json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert set(found.to_frame()["act_measured"]) == {""}


def test_every_key_that_a_ranking_writes_is_one_that_is_checked() -> None:
    assert set(RANKING.info) | {"table_sha256"} == set(Record.model_fields)
