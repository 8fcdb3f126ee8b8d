"""One process writes at a time; what a killed one left is removed by its name, and nothing else."""

import errno
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from hessrank.errors import OutputError
from hessrank.files.atomic_write import written_whole
from hessrank.files.one_writer import one_writer


def _names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def _in_a_child(work: Callable[[], None], until: Path) -> int:
    """Start a process that does ``work``; return its number once ``until`` is there."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    while not until.exists():
        time.sleep(0.01)
    return child


def _killed(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.fixture
def writing(tmp_path: Path) -> Callable[[], None]:
    """What writes two files in a folder and never finishes."""
    (tmp_path / "run" / "sub").mkdir(parents=True)

    def work() -> None:
        with (
            one_writer(tmp_path / "run"),
            written_whole(tmp_path / "run" / "a.csv") as one,
            written_whole(tmp_path / "run" / "sub" / "b.png") as other,
        ):
            one.write_text("half")
            other.write_text("half")
            (tmp_path / "at-work").write_text("")
            time.sleep(60)

    return work


def test_a_second_process_is_told_who_writes(tmp_path: Path, writing: Callable[[], None]) -> None:
    child = _in_a_child(writing, tmp_path / "at-work")
    try:
        with (
            pytest.raises(OutputError, match=rf"run: process {child} on {socket.gethostname()} is writing it: wait"),
            one_writer(tmp_path / "run"),
        ):
            pass
        assert "run/hessrank.lock" in _names(tmp_path)
    finally:
        _killed(child)


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path, writing: Callable[[], None]) -> None:
    (tmp_path / "run" / f".hessrank-{'1' * 32}.csv").write_text("mine")
    _killed(_in_a_child(writing, tmp_path / "at-work"))
    assert len(_names(tmp_path)) == 5
    with one_writer(tmp_path / "run"):
        pass
    assert _names(tmp_path) == ["at-work", f"run/.hessrank-{'1' * 32}.csv"]


def test_a_file_that_was_not_finished_is_removed_when_it_is_written_again(tmp_path: Path) -> None:
    def work() -> None:
        with written_whole(tmp_path / "a.csv") as beside:
            beside.write_text("half")
            (tmp_path / "at-work").write_text("")
            time.sleep(60)

    _killed(_in_a_child(work, tmp_path / "at-work"))
    assert len(_names(tmp_path)) == 3
    with written_whole(tmp_path / "a.csv") as beside:
        beside.write_text("whole")
    assert _names(tmp_path) == ["a.csv", "at-work"]


def test_an_unfinished_line_of_a_killed_process_does_no_harm(tmp_path: Path) -> None:
    for text in ("", '{"hessr', '{"hessrank": 1, "process": 1, "host": "h"}\n".hessr'):
        (tmp_path / "a.csv.lock").write_text(text)
        with one_writer(tmp_path / "a.csv"):
            pass
        assert _names(tmp_path) == []


@pytest.mark.parametrize(
    "entry",
    ["precious.txt", "../precious.txt", "/etc/hostname", f"../.hessrank-{'2' * 32}", f"link/.hessrank-{'2' * 32}", 7,
     None, [], "\0", f"\0/.hessrank-{'2' * 32}", f".hessrank-{'3' * 32}"],
)  # fmt: skip
def test_a_lock_that_somebody_made_up_removes_nothing(tmp_path: Path, entry: object) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to(tmp_path)
    kept = [tmp_path / "run" / "precious.txt", tmp_path / "precious.txt", tmp_path / f".hessrank-{'2' * 32}"]
    for path in kept:
        path.write_text("mine")
    (tmp_path / "run" / f".hessrank-{'3' * 32}").symlink_to("precious.txt")
    owner = json.dumps({"hessrank": 1, "process": 1, "host": "h"})
    (tmp_path / "run" / "hessrank.lock").write_text(f"{owner}\n{json.dumps(entry)}\n")
    with one_writer(tmp_path / "run"):
        pass
    assert all(path.read_text() == "mine" for path in kept)
    assert (tmp_path / "run" / f".hessrank-{'3' * 32}").is_symlink()


@pytest.mark.parametrize("text", ["mine", "{}\n", "[]\n", '{"hessrank": 2}\n', "\n", "[" * 100_000 + "\n"])
def test_what_is_no_lock_of_ours_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv.lock").write_text(text)
    with pytest.raises(OutputError, match=r"a\.csv\.lock: is in the place of a lock"), one_writer(tmp_path / "a.csv"):
        pass
    assert (tmp_path / "a.csv.lock").read_text() == text


def test_a_link_or_a_pipe_in_the_place_of_a_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a.lock").symlink_to("precious")
    os.mkfifo(tmp_path / "b.lock")
    for name in ("a", "b"):
        with pytest.raises(OutputError), one_writer(tmp_path / name):
            pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_threads_of_one_process_do_not_write_over_each_other(tmp_path: Path) -> None:
    found: list[BaseException] = []

    def write() -> None:
        try:
            with written_whole(tmp_path / "a.txt"):
                pass
        except OutputError as error:
            found.append(error)

    with written_whole(tmp_path / "a.txt") as beside:
        thread = Thread(target=write)
        thread.start()
        thread.join()
        beside.write_text("whole")
    assert "this very process" in str(found[0])
    assert _names(tmp_path) == ["a.txt"]


def _no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "no locks here")


def test_where_the_kernel_keeps_no_locks_the_owner_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.lockf", _no_locks)
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    told = {
        (gone, socket.gethostname()): None,
        (os.getppid(), socket.gethostname()): "is writing it",
        (1, "elsewhere"): "process 1 on elsewhere is writing it: wait for it; if it is gone, remove",
    }
    for (process, host), expected in told.items():
        owner = {"hessrank": 1, "process": process, "host": host}
        (tmp_path / "a.csv.lock").write_text(json.dumps(owner) + "\n")
        if expected is None:
            with one_writer(tmp_path / "a.csv"):
                pass
        else:
            with pytest.raises(OutputError, match=expected), one_writer(tmp_path / "a.csv"):
                pass
