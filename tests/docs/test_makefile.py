"""``make help`` names every target, once, with the line that stands beside it."""

import re
import subprocess

from helpers.places import ROOT


def test_help_has_a_line_for_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]\w*):", makefile, flags=re.MULTILINE)
    said = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[1] for line in said.splitlines()] == targets
    assert all(len(line.split(maxsplit=2)[2]) > 10 for line in said.splitlines())
