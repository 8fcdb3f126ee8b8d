"""``python -m tests.safety.hostile``: run many cases, or one again."""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import checks, runner
from .cases import Case, make_case, numbers
from .inputs import make
from .recipes import SHARES


@dataclass(frozen=True)
class Verdict:
    """What became of a case."""

    case: Case
    status: int
    said: str
    problems: list[str]


def judged(one: tuple[str, int], *, seed: int, root: Path) -> Verdict:
    """Make a case in a scratch folder, run it, and say what does not hold."""
    command, number = one
    scratch = Path(tempfile.mkdtemp(dir=root, prefix="case-"))
    try:
        for name in ("work", "home", "tmp", "streams"):
            (scratch / name).mkdir()
        case = make_case(command, seed, number, root / "inputs", scratch / "work")
        before = checks.snapshot(scratch)
        ended = runner.run(list(case.arguments), scratch / "work", scratch / "streams")
        after = {n: state for n, state in checks.snapshot(scratch).items() if not n.startswith("streams/")}
        return Verdict(case, ended.status, ended.err, checks.broken(case, ended, before, after))
    finally:
        shutil.rmtree(scratch)


def _command_in(scratch: Path, arguments: list[str], folder: Path) -> int:
    for name in ("home", "tmp", "streams"):
        (scratch / name).mkdir(exist_ok=True)
    ended = runner.run(arguments, folder, scratch / "streams")
    if ended.status:
        print(ended.err, file=sys.stderr)
    return ended.status


def main() -> int:
    """Run what the command line says; return 1 if anything does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.safety.hostile", description=__doc__)
    parser.add_argument("--cases", type=int, default=150, help="how many, over all commands")
    parser.add_argument("--seed", type=int, default=0, help="other cases")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--command", choices=SHARES, help="of one command only")
    parser.add_argument("--case", type=int, help="this one of --command, with all that it says")
    chosen = parser.parse_args()
    if chosen.case is not None and chosen.command is None:
        parser.error("--case is the number of a case of --command: give both")
    runner.warm_up()
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        root = Path(folder)
        (root / "inputs").mkdir()
        make(root / "inputs", partial(_command_in, root))
        judge = partial(judged, seed=chosen.seed, root=root)
        if chosen.case is not None:
            return _again(judge((chosen.command, chosen.case)))
        count = chosen.cases if chosen.command is None else chosen.cases * sum(SHARES.values())
        todo = [one for one in numbers(count) if chosen.command in (None, one[0])][: chosen.cases]
        start = time.monotonic()
        with multiprocessing.get_context("fork").Pool(chosen.jobs) as pool:
            verdicts = [_told(verdict) for verdict in pool.imap_unordered(judge, todo)]
    _print_table(verdicts)
    print(f"{len(verdicts)} cases in {time.monotonic() - start:.0f} s")
    return _print_problems(verdicts)


def _told(verdict: Verdict) -> Verdict:
    """Say at once what does not hold: a long run may be cut off."""
    for problem in verdict.problems:
        print(f"{problem}\n    {verdict.case.again}", file=sys.stderr, flush=True)
    return verdict


def _again(verdict: Verdict) -> int:
    print(f"{verdict.case}\nexit status {verdict.status}\n{verdict.said}")
    for problem in verdict.problems:
        print(f"FAILED {problem}")
    return int(bool(verdict.problems))


def _print_table(verdicts: list[Verdict]) -> None:
    statuses = sorted({verdict.status for verdict in verdicts})
    print("command".ljust(10), "cases", *(f"exit {status}".rjust(8) for status in statuses), "failed".rjust(8))
    for command in SHARES:
        ours = [verdict for verdict in verdicts if verdict.case.command == command]
        counts = Counter(verdict.status for verdict in ours)
        failed = sum(bool(verdict.problems) for verdict in ours)
        print(command.ljust(10), f"{len(ours):5}", *(f"{counts[s]:8}" for s in statuses), f"{failed:8}")


def _print_problems(verdicts: list[Verdict]) -> int:
    """Print every kind of failure, the most frequent first, with the commands that repeat it."""
    kinds: dict[str, list[Case]] = defaultdict(list)
    for verdict in verdicts:
        for problem in verdict.problems:
            kinds[problem].append(verdict.case)
    for problem, cases in sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0])):
        first = min(cases, key=lambda case: (len(case.changed), case.command, case.number))
        print(f"\n{len(cases)} × {problem}\n    {first}\n    {first.again}")
    return int(bool(kinds))


if __name__ == "__main__":
    sys.exit(main())
