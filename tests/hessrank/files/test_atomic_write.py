"""Files are written whole or not at all, and nothing else is touched."""

import os
import stat
from pathlib import Path

import pytest

from hessrank.errors import OutputError
from hessrank.files.atomic_write import check_writable, written_whole
from hessrank.files.one_writer import one_writer


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_appears_whole(tmp_path: Path) -> None:
    with written_whole(tmp_path / "a.txt") as beside:
        beside.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "new"
    assert _names(tmp_path) == ["a.txt"]


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
    assert _names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def write() -> None:
        with written_whole(tmp_path / "a.txt"), Path("/dev/full").open("w") as full:
            full.write("x" * 100_000)

    with pytest.raises(OutputError, match=r"a\.txt: cannot be written: No space left on device"):
        write()
    assert _names(tmp_path) == []


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "a.txt").chmod(mode)
    with written_whole(tmp_path / "a.txt") as beside:
        beside.write_text("new")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode


def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with written_whole(tmp_path / "a.txt") as beside:
            beside.write_text("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a.txt").symlink_to("precious")
    with written_whole(tmp_path / "a.txt") as beside:
        beside.write_text("new")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "a.txt").read_text() == "new"
    assert not (tmp_path / "a.txt").is_symlink()


def test_temporary_names_cannot_be_foreseen_and_keep_the_ending(tmp_path: Path) -> None:
    names = set()
    for _ in range(5):
        with written_whole(tmp_path / "a.png") as beside:
            names.add(beside.name)
    assert len(names) == 5
    assert all(name.startswith(".hessrank-") and name.endswith(".png") and len(name) > 40 for name in names)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "no/such/folder.txt", ".", "loop/x"])
def test_names_that_no_file_can_have_are_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError):
        check_writable(tmp_path / name)
    with pytest.raises(OutputError), written_whole(tmp_path / name):
        pass
    assert _names(tmp_path) == ["loop"]


def test_hidden_files_of_others_stay(tmp_path: Path) -> None:
    """What an earlier version took for its own: anything hidden with a number in its name."""
    (tmp_path / "sub").mkdir()
    strangers = [".env.1", ".x.4711.csv", "sub/.data.2023.csv", ".hessrank-0.txt", f".hessrank-{'0' * 32}.txt"]
    for name in strangers:
        (tmp_path / name).write_text("mine")
    with one_writer(tmp_path), written_whole(tmp_path / "a.txt") as beside:
        beside.write_text("new")
    assert all((tmp_path / name).read_text() == "mine" for name in strangers)
