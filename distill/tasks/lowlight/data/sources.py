"""Where the low-light task's data come from: photographs, SID or MCR."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hessrank.distill.tasks.lowlight.data.mcr_folders import MCR_LAYOUT, is_mcr, mcr_pairs
from hessrank.distill.tasks.lowlight.data.options import LowLightOptions
from hessrank.distill.tasks.lowlight.data.photographs import HELD_OUT, NightPhotographs, held_out
from hessrank.distill.tasks.lowlight.data.samples import TrainingSquares, WholeFrames
from hessrank.distill.tasks.lowlight.data.sid import SID_LAYOUT, is_sid, sid_pairs
from hessrank.errors import DataError, OptionError, unknown_name

PHOTOGRAPHS = "photographs"
"""The name of the built-in data."""
PATCH = 512
"""Side of the training squares of SID and MCR, as published."""
_NEAR = 8  # scenes of SID that training goes through together: their development takes seconds each


@dataclass(frozen=True)
class LowLightData:
    """Data for training and validation.

    Attributes:
        training: map-style, endless, of ``(raw, (mono, rgb))``.
        validation: map-style, likewise; frames may differ in size.
        notes: what was done, a sentence each.
    """

    training: Any
    validation: Any
    notes: tuple[str, ...]


def photographs(options: LowLightOptions) -> LowLightData:
    """Return the photographs inside scikit-image and scikit-learn, taken in a simulated night.

    Squares of 64 pixels and 800 items an epoch unless the options say otherwise.

    Raises:
        DataError: scikit-image or scikit-learn is not installed.
        OptionError: a photograph is smaller than a square.
    """
    training = NightPhotographs(
        options.samples or 800, size=options.patch or 64, seed=options.seed, pattern=options.pattern
    )
    nights = held_out(ratio=options.ratio, seed=options.seed, pattern=options.pattern)
    validation = [(night.raw, (night.mono, night.rgb)) for night in nights]
    note = f"photographs inside scikit-image and scikit-learn, in a simulated night; held out: {', '.join(HELD_OUT)}"
    return LowLightData(training, validation, (note,))


def sid(root: Path, options: LowLightOptions) -> LowLightData:
    """Return the Sony part of SID: squares of the training list, whole frames of the list to judge with.

    Raises:
        DataError: see :func:`~hessrank.distill.tasks.lowlight.data.sid.sid_pairs`.
    """
    lists = [
        sid_pairs(root, split, ratio=options.ratio, pattern=options.pattern) for split in ("train", options.split)
    ]
    (training, training_notes), (validation, validation_notes) = lists
    notes = (_counts("SID", training, validation), *training_notes, *validation_notes)
    return LowLightData(_squares(training, options, near=_NEAR), WholeFrames(validation), notes)


def mcr(root: Path, options: LowLightOptions) -> LowLightData:
    """Return the MCR data set, as pictures or as ``.raw`` files.

    Raises:
        DataError: see :func:`~hessrank.distill.tasks.lowlight.data.mcr_folders.mcr_pairs`.
    """
    training, validation, note = mcr_pairs(root, pattern=options.pattern)
    notes = (_counts("MCR", training, validation), note)
    return LowLightData(_squares(training, options), WholeFrames(validation), notes)


def find_data(data: str | None, folder: Path, kind: str | None, options: LowLightOptions) -> LowLightData:
    """Return the data that a run file names.

    Args:
        data: a path; ``photographs`` or None for these.
        folder: where a relative path starts.
        kind: ``sid``, ``mcr`` or ``photographs``; None looks at how the folder is laid out.
        options: how to read them.

    Raises:
        UnknownNameError: there is no such kind.
        OptionError: the kind does not go with the data.
        DataError: the data are not there, or laid out otherwise; the message shows how they should be.
    """
    known: dict[str, Callable[[Path, LowLightOptions], LowLightData]] = {"sid": sid, "mcr": mcr}
    if kind not in (None, PHOTOGRAPHS, *known):
        raise unknown_name("kind of data", str(kind), (PHOTOGRAPHS, *known))
    if data in (None, PHOTOGRAPHS):
        if kind in known:
            raise OptionError(f"kind is {kind}, but data names no folder; name it, or leave kind out")
        return photographs(options)
    if kind == PHOTOGRAPHS:
        raise OptionError(f"kind is {kind}, which lie inside scikit-image; leave data out, it is {data}")
    root = folder / Path(str(data)).expanduser()
    return known[kind or _kind_of(root)](root, options)


def _kind_of(root: Path) -> str:
    if is_sid(root):
        return "sid"
    if is_mcr(root):
        return "mcr"
    problem = "neither SID nor MCR" if root.is_dir() else "there is no such folder"
    raise DataError(f"{root}: {problem}; SID has {SID_LAYOUT}; MCR has {MCR_LAYOUT}")


def _squares(pairs: Any, options: LowLightOptions, *, near: int | None = None) -> TrainingSquares:
    return TrainingSquares(
        pairs,
        size=options.patch or PATCH,
        seed=options.seed,
        length=options.samples,
        cache=options.cache,
        near=near,
    )


def _counts(name: str, training: list[Any], validation: list[Any]) -> str:
    return f"data set {name}: {len(training)} pairs for training, {len(validation)} for validation"
