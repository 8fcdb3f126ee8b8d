"""Reads files of ``torch.save``, without running code unless they are trusted."""

from __future__ import annotations

import contextlib
import pickle
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hessrank.errors import LoadError
from hessrank.files.size_limits import check_archive
from hessrank.models.tensors import check_tensors
from hessrank.out_of_memory import is_out_of_memory
from hessrank.text import IN_ALL, listed, one_line, printable
from hessrank.user_code import keep_process_state

_LISTED = 4
TOO_LARGE = "it does not fit into memory, or is damaged and claims more than it holds"
_REFUSED = re.compile(r"GLOBAL (\S+)")  # how torch's weights-only reader words it


def read_pickle(path: Path, *, trust_pickle: bool) -> Any:
    """Return what the file holds, its tensors on the CPU.

    Args:
        path: a file that ``torch.save`` wrote, in the zip or in the older format.
        trust_pickle: whether objects other than tensors and plain containers may be built, which runs
            whatever code the file names.

    Raises:
        LoadError: the file is cut short or damaged, needs trust that was not given, or needs code that is
            not here.
    """
    check_archive(path, error=LoadError)
    try:
        held = load_tensors(path)
    except Exception as error:  # torch raises several kinds here
        if not trust_pickle:
            raise LoadError(f"{path}: {_explain_refusal(path, error)}") from error
        held = _read_trusted(path)
    check_tensors(path, held, error=LoadError)
    return held


def load_tensors(path: Path) -> Any:
    """Read a file of ``torch.save`` without running code, onto the CPU."""
    with warnings.catch_warnings(action="ignore"):
        return torch.load(path, map_location="cpu", weights_only=True)


def unsafe_names(path: Path, error: BaseException | None = None) -> list[str]:
    """Return the functions and classes that a pickle would call.

    Those of tensors and containers are left out.

    Args:
        path: a file that ``torch.save`` wrote.
        error: what ``torch.load(weights_only=True)`` raised, if it did: all there is to go by for the older
            format.
    """
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # torch raises several kinds here: not a zip file, or a damaged one
        refused = _REFUSED.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
        return [refused.group(1)] if refused else []


def _explain_refusal(path: Path, error: Exception) -> str:
    """Return why the file was not read: it needs trust, memory, or a new copy."""
    if needed := unsafe_names(path, error):
        names = listed(map(printable, needed), _LISTED, IN_ALL)
        return (
            f"reading this pickle would run code ({names}); if you trust who made it, add --trust-pickle "
            "(trust_pickle=True), else get its state_dict and give the architecture with --arch"
        )
    if is_out_of_memory(error):
        return TOO_LARGE
    if isinstance(error, pickle.UnpicklingError):  # torch's text only says to trust the file
        return (
            "the file is damaged, or written with a newer pickle protocol, which cannot be read safely: save it "
            "again with torch.save's default, or, if you trust who made it, add --trust-pickle"
        )
    return f"the file is cut short or damaged: {one_line(error)}"


def _read_trusted(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"), _current_folder_importable(), keep_process_state():
            return torch.load(path, map_location="cpu", weights_only=False)
    except (ImportError, AttributeError) as error:
        raise LoadError(
            f"{path}: the pickle needs code that is not here: {one_line(error)}; run where that module "
            "can be imported, or save the state_dict and give the architecture with --arch"
        ) from error
    except (Exception, SystemExit) as error:  # the code that the pickle names may raise anything
        reason = TOO_LARGE if is_out_of_memory(error) else f"the pickle cannot be read: {one_line(error)}"
        raise LoadError(f"{path}: {reason}") from error


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    """Let a pickle import modules of the current folder, as ``python -m`` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)
