"""How long the command line takes to answer ``--help``: CPU seconds of a fresh process, median of five."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

from benchmarks.common import Row, parsed, parser, report

COMMANDS = (["--help"], ["rank", "--help"])


def cpu_seconds(arguments: list[str]) -> float:
    """Return user and system seconds of ``python -m hessrank`` with ``arguments``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "hessrank", *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure(arguments: list[str], repeats: int) -> Row:
    """Run a command once to warm the disk's cache, then ``repeats`` times."""
    cpu_seconds(arguments)
    taken = [cpu_seconds(arguments) for _ in range(repeats)]
    return {
        "command": " ".join(["hessrank", *arguments]),
        "CPU seconds": statistics.median(taken),
        "least": min(taken),
        "most": max(taken),
    }


def main() -> None:
    """Measure and print the table."""
    options = parsed(parser(__doc__))
    rows = [measure(arguments, 2 if options.quick else 5) for arguments in COMMANDS]
    report("How long --help takes", rows, options.out)


if __name__ == "__main__":
    main()
