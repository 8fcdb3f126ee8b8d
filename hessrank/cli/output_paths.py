"""Where a command may write: refused before hours of work, not after them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from hessrank.errors import OutputError
from hessrank.files.atomic_write import check_writable
from hessrank.files.paths import record_of, resolved, shown_path

_CONTENT = {
    ".csv": "the table is a CSV file",
    ".yaml": "a policy is a YAML file",
    ".onnx": "the network is an ONNX file",
    ".json": "the scales are a JSON file",
}
_ENDINGS = {".yaml": (".yaml", ".yml")}
_OF_A_MODEL = ("config.json", "generation_config.json")
_PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp")


def check_outputs(
    out: Path | None,
    *plots: Path | None,
    inputs: Sequence[str | Path | None] = (),
    ending: str = ".csv",
    beside: Mapping[Path | None, str] | None = None,
    record: bool = True,
) -> None:
    """Refuse output paths that cannot be written to, before hours of work.

    Args:
        out: the main file, which must end in ``ending``; beside a table a record in ``.json`` is written.
        plots: pictures.
        inputs: what is read: files, or folders of samples or of a model.
        ending: of ``out``.
        beside: other files that are written, with their endings.
        record: whether a record is written beside a table.

    Raises:
        OutputError: saying what is in the way.
    """
    files = {out: ending, **(beside or {})}
    for file, wanted in files.items():
        if file is None:
            continue
        check_writable(file)
        if file.suffix not in _ENDINGS.get(wanted, (wanted,)):
            raise OutputError(f"{shown_path(file)}: {_CONTENT[wanted]}: let its name end in {wanted}")
    for plot in plots:
        if plot is None:
            continue
        check_writable(plot)
        if plot.suffix.lower() not in _PICTURES:
            raise OutputError(f"{shown_path(plot)}: no picture format {plot.suffix!r}; known: {', '.join(_PICTURES)}")
    noted = record_of(out) if record and out is not None and ending == ".csv" else None
    _refuse_collisions([p for p in (*files, noted, *plots) if p is not None], inputs)
    if noted is not None:
        from hessrank.analysis.result.record_file import refuse_foreign

        refuse_foreign(noted)


def _refuse_collisions(written: Sequence[Path], inputs: Sequence[str | Path | None]) -> None:
    """Refuse an output in the place of another one, or of an input.

    Refused too is one that would be read as a sample, or as part of a model, in a folder that is an input.
    """
    places: dict[Path, Path] = {}
    for path in written:
        other = places.setdefault(resolved(path), path)
        if other is not path:
            raise OutputError(
                f"{shown_path(path)}: would be written over by {shown_path(other)}: give each file a name of its own"
            )
    for given in inputs:
        if given is None:
            continue
        place, source = resolved(os.path.expanduser(given)), shown_path(given)
        if place in places:
            raise OutputError(f"{source}: is read from and would be written over: give another name to write to")
        for at, path in places.items():
            if at.parent == place and (at.suffix.lower() in _PICTURES or at.name in _OF_A_MODEL):
                raise OutputError(
                    f"{shown_path(path)}: would be one of the files in {source} that are read: write it elsewhere"
                )
