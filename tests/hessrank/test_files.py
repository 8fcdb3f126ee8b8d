"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from hessrank.errors import OutputError
from hessrank.files import remove_leftovers, written_whole


def test_a_file_appears_whole(tmp_path: Path) -> None:
    with written_whole(tmp_path / "a.txt") as beside:
        beside.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_goes_wrong_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a.txt").write_text("old")

    def write() -> None:
        with written_whole(tmp_path / "a.txt") as beside:
            beside.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def write() -> None:
        with written_whole(tmp_path / "a.txt"), Path("/dev/full").open("w") as full:
            full.write("x" * 100_000)

    with pytest.raises(OutputError, match=r"a\.txt: cannot be written: No space left on device"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in (".x.4711.csv", "inner/.y.12.txt", ".hidden", ".x.csv", "x.4711.csv", ".git.d"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == {
        ".hidden",
        ".x.csv",
        "x.4711.csv",
        ".git.d",
    }
