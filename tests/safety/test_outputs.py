"""No output takes the place of an input, of another output, or of somebody else's file."""

from pathlib import Path

import pytest
from helpers.rankings import ranked

from hessrank.analysis.result.ranking import Ranking
from hessrank.cli.output_paths import check_outputs
from hessrank.errors import OutputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("im", "hf"):
        (tmp_path / name).mkdir()
    (tmp_path / "here").symlink_to(".")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


REFUSED = {
    "a picture among the data": ((Path("r.csv"), Path("im/a.png")), ["im"], r"im/a\.png: would be one of the files"),
    "the same by a link": ((None, Path("here/im/a.png")), ["./im/"], "would be one of the files in"),
    "a record in the place of a configuration": ((Path("hf/config.csv"),), ["hf"], r"hf/config\.json: would be one"),
    "two pictures in one place": (
        (Path("p.yaml"), Path("x.png"), Path("here/x.png")),
        [],
        "would be written over by",
    ),
    "a picture over the input": ((None, Path("a.png")), ["a.png"], r"a\.png: is read from"),
    "a record over the data": ((Path("a.csv"),), ["here/a.json"], r"here/a\.json: is read from"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_before_any_work(name: str, folder: Path) -> None:
    (out, *plots), inputs, says = REFUSED[name]
    (folder / "a.png").write_bytes(b"")
    (folder / "a.json").write_bytes(b"")
    ending = out.suffix if out is not None else ".csv"
    with pytest.raises(OutputError, match=says):
        check_outputs(out, *plots, inputs=inputs, ending=ending)


def test_tables_may_lie_beside_the_data(folder: Path) -> None:
    check_outputs(
        Path("im/r.csv"), Path("a.png"), inputs=["im", "random", "pkg.mod:loader", "loop", "a\0b", "~nobody"]
    )
    check_outputs(Path("hf/r.csv"), inputs=["hf", None])


@pytest.mark.parametrize("text", ['{"name": "package"}', "[1]", "{", "", '{"layers": 3}'])
def test_a_record_takes_no_strangers_place(text: str, folder: Path) -> None:
    (folder / "package.json").write_text(text)
    with pytest.raises(OutputError, match=r"package\.json: is no record of a ranking"):
        check_outputs(Path("package.csv"))
    with pytest.raises(OutputError, match=r"package\.json: is no record of a ranking"):
        ranked("exact").to_csv("package.csv")
    assert (folder / "package.json").read_text() == text
    assert not (folder / "package.csv").exists()
    check_outputs(Path("package.csv"), record=False)


def test_a_ranking_may_be_written_again(folder: Path) -> None:
    ranking = ranked("exact")
    ranking.to_csv("r.csv")
    check_outputs(Path("r.csv"))
    ranking.to_csv("r.csv")
    assert Ranking.read("r.csv").sha256 == ranking.sha256
