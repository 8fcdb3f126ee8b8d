"""Notebooks are stored with what they show. As a program, this runs them, or those named, and stores that."""

from __future__ import annotations

import math
import os
import re
import sys
from base64 import b64decode, b64encode
from functools import reduce
from io import BytesIO
from pathlib import Path

import nbformat
from helpers.places import ROOT
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
_COLORS = 32
_TEXTS = ("text/plain", "text/html")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")
_VOLATILE = (
    (re.compile(r"0x[0-9a-f]+"), "0x…"),  # addresses
    (re.compile(r"(?:/[\w.-]+)*/tmp\w*[\w./-]*"), "…"),  # temporary folders
    (re.compile(r"\b[0-9a-f]{12,}"), "…"),  # checksums of numbers
    (re.compile(r"(?<=epoch)\d+"), "…"),  # in names of files: which epoch was the best
    (re.compile(r"\bT_[0-9a-f]{5}"), "T_…"),  # a styled table's identity
    (re.compile(r"^note: (?:onnxruntime|on x86).*\n?", re.MULTILINE), ""),  # its kernels are the processor's
    (re.compile(r"\d+(?:\.\d+)?(?= (?:s|seconds|ms|it/s)\b)"), "…"),
)


def executed(path: Path) -> NotebookNode:
    """Return a notebook with the outputs that it has here and now; it is not written to."""
    notebook = nbformat.read(path, as_version=4)
    # Tables are as wide, and pictures are shown, as they are for everybody.
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "MPLBACKEND")}
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute(env=environment)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def pictures(cell: NotebookNode) -> list[str]:
    """Return the pictures that a cell shows, as base64."""
    return [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]


def texts(cell: NotebookNode) -> list[str]:
    """Return what a cell prints and shows in words, without what differs from run to run."""
    found: dict[str, str] = {}
    for output in cell.outputs:
        if output.output_type == "stream":
            found["printed"] = found.get("printed", "") + output.text
        for kind in _TEXTS:
            if kind in output.get("data", {}):
                found[kind] = found.get(kind, "") + _a_line_a_row(output.data[kind])
    return [reduce(lambda text, rule: rule[0].sub(rule[1], text), _VOLATILE, text) for text in found.values()]


def _a_line_a_row(text: str) -> str:
    """Return HTML with each row of its tables in a line; other text as it is."""
    return re.sub(r"\s*\n\s*", " ", text).replace("</tr>", "</tr>\n") if "<tr" in text else text


def difference(stored: str, now: str, tolerance: float) -> str | None:
    """Return the first line in which two texts differ, or None.

    Words must be equal. Numbers may differ by ``tolerance`` of the larger, whole numbers also by 1, for two places
    may be exchanged; so lines count in any order.

    Args:
        stored: one text.
        now: the other.
        tolerance: relative.
    """
    if len(stored.splitlines()) != len(now.splitlines()):
        return f"{len(stored.splitlines())} lines were stored, there are {len(now.splitlines())}"
    for one, other in zip(_by_words(stored), _by_words(now), strict=True):
        if one[0] != other[0] or not all(map(_close, one[1], other[1], [tolerance] * len(one[1]))):
            return f"stored: {one[2]!r}, now: {other[2]!r}"
    return None


def _by_words(text: str) -> list[tuple[str, list[str], str]]:
    """Return the lines as words, numbers and themselves, in the order of these."""
    lines = []
    for line in text.splitlines():
        numbers = _NUMBER.findall(line)
        words = " ".join(_NUMBER.sub("#", line).replace("─", "").replace("█", "").replace("·", "").split())
        lines.append((words, numbers, line))
    return sorted(lines, key=lambda line: (line[0], [float(number) for number in line[1]]))


def _close(one: str, other: str, tolerance: float) -> bool:
    whole = not {".", "e"} & {*one, *other}
    return math.isclose(float(one), float(other), rel_tol=tolerance, abs_tol=1.0 if whole else 1e-12)


def with_small_pictures(notebook: NotebookNode) -> NotebookNode:
    """Return a notebook whose pictures have few colors, which takes a quarter of the bytes."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data.pop("image/jpeg", None)  # pillow's pictures come as both
                buffer = BytesIO()
                picture = Image.open(BytesIO(b64decode(output.data["image/png"]))).convert("RGB")
                picture.quantize(_COLORS).save(buffer, "PNG", optimize=True)
                output.data["image/png"] = b64encode(buffer.getvalue()).decode()
    return notebook


if __name__ == "__main__":
    for path in [FOLDER / f"{name}.ipynb" for name in sys.argv[1:]] or NOTEBOOKS:
        nbformat.write(with_small_pictures(executed(path)), path)
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")  # noqa: T201
