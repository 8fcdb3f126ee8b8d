"""Brightens RAW frames by the exposure that their names tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_MCR = re.compile(r"([CM])(\d{5})_.*_0x([0-9a-fA-F]{4})")
_SID = re.compile(r"(\d{5})_(\d{2})_(\d+(?:\.\d+)?)s")

MOST_SID_RATIO = 300.0
"""The largest amplification the SID benchmark uses."""
LEAST_LONG_SECONDS = 1.0
"""SID's inputs last 0.1 s at most, its references 10 or 30 s; one short input is no reference of another."""


@dataclass(frozen=True)
class McrName:
    """What the name of an MCR frame says, ``C00400_48mp_0x8_0x03ff``.

    Attributes:
        color: whether the color camera took it (C), or the monochrome one (M).
        scene: number of the scene.
        shutter: exposure time, in units of the sensor's register.
    """

    color: bool
    scene: int
    shutter: int

    @property
    def gain(self) -> float:
        """The shutter of the scene's ground truth divided by this frame's."""
        truth = 0x2FFF if self.scene < 500 else 0x03FF
        return truth / self.shutter


def parse_mcr(path: Path) -> McrName | None:
    """Return what an MCR name says; None for other names and a shutter of 0."""
    match = _MCR.fullmatch(path.stem)
    if match is None or int(match.group(3), 16) == 0:
        return None
    return McrName(match.group(1) == "C", int(match.group(2)), int(match.group(3), 16))


def parse_sid(path: Path) -> tuple[str, float] | None:
    """Return scene and exposure in seconds of a SID name; None for other names.

    A SID name is ``00001_00_0.1s``.
    """
    match = _SID.fullmatch(path.stem)
    if match is None or float(match.group(3)) == 0:
        return None
    return match.group(1), float(match.group(3))


def long_partner(path: Path) -> Path | None:
    """Return the longest reference of the same SID scene; None without one.

    It lies in the same folder or in ``../long``.

    Args:
        path: a file with or without a SID name; only references exposed for longer than it count.
    """
    own = parse_sid(path)
    if own is None:
        return None
    folder = path.resolve().parent
    found = [file for place in (folder, folder.parent / "long") for file in place.glob(f"{own[0]}_*s{path.suffix}")]
    least = max(own[1], LEAST_LONG_SECONDS)
    timed = [(name[1], file) for file in found if (name := parse_sid(file)) and name[1] > least]
    return max(timed)[1] if timed else None


def sid_gain(path: Path) -> float | None:
    """Return how much longer the partner was exposed, at most 300 times.

    It is None without a partner.
    """
    own, partner = parse_sid(path), long_partner(path)
    long = parse_sid(partner) if partner is not None else None
    return min(long[1] / own[1], MOST_SID_RATIO) if own and long else None


def without_references(paths: Sequence[Path]) -> list[Path]:
    """Return the files that are no long reference of a shorter exposure."""
    names = {path: parse_sid(path) for path in paths}
    short = {name[0] for name in names.values() if name and name[1] <= LEAST_LONG_SECONDS}
    return [path for path, name in names.items() if not (name and name[0] in short and name[1] > LEAST_LONG_SECONDS)]


def expose(
    raw: np.ndarray[Any, Any], *, black: np.ndarray[Any, Any] | float, white: float, gain: float
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return ``max(raw − black, 0) / (white − black) · gain``, clipped to 1.

    Args:
        raw: sensor values H×W.
        black: the value of no light, for all pixels or for each.
        white: the value at which the sensor saturates.
        gain: the amplification.
    """
    light = np.maximum(raw.astype(np.float32) - black, 0) / (white - np.asarray(black, dtype=np.float32))
    return np.asarray(np.minimum(light * gain, 1), dtype=np.float32)
