"""The fenced blocks of a page of the documents, run one after the other as a reader would.

Fenced blocks run; what does not run is indented. A block whose first line is ``# name.ext`` is saved under this name.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hessrank.cli import main

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"# ([\w.-]+\.\w+)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the file that it is to be saved as, if any."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        found = _NAME.match(self.text)
        return found[1] if found else None


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """Return the blocks of a page, all or those of one language."""
    found = [Block(*parts) for parts in _FENCED.findall(page.read_text(encoding="utf-8"))]
    return [block for block in found if language in (None, block.language)]


def run(page_blocks: Sequence[Block], folder: Path) -> dict[str, Any]:
    """Save, run or execute blocks in their order in ``folder``, the current one; return what Python has then."""
    namespace: dict[str, Any] = {}
    with _importing_from(folder):
        for block in page_blocks:
            if block.file is not None:
                (folder / block.file).write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                exec(compile(block.text, "page", "exec"), namespace)
            elif block.language == "bash":
                for line in block.text.splitlines():
                    _command(shlex.split(line, comments=True))
    return namespace


def _command(words: list[str]) -> None:
    if words[0] == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return
    assert words[0] == "hessrank", words
    assert main(words[1:]) == 0, words


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Let Python import the files of ``folder``, as a program that lies there does, and forget them again."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
