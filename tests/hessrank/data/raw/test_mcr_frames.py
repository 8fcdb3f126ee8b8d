"""Frames of MCR."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hessrank.data.raw.mcr_frames import COLUMNS, ROWS, McrFrame, check_frame_size, mcr_frames
from hessrank.errors import DataError


def write(path: Path, value: int = 51) -> Path:
    np.full(ROWS * COLUMNS, value, np.uint8).tofile(path)
    return path


def test_values_are_amplified_and_clipped(tmp_path: Path) -> None:
    path = write(tmp_path / "frame.raw")
    assert McrFrame(path, 1.0).read().shape == (ROWS, COLUMNS)
    assert float(McrFrame(path, 2.0).read()[0, 0]) == pytest.approx(0.4)
    assert float(McrFrame(path, 9.0).read()[0, 0]) == 1.0


def test_a_name_without_a_shutter_is_noted(tmp_path: Path) -> None:
    frames, notes = mcr_frames([write(tmp_path / "frame.raw")], gain=None)
    assert [frame.gain for frame in frames] == [1.0]
    assert notes[-1] == "no shutter in the name of frame.raw: gain 1 for 1 of them"
    assert mcr_frames([tmp_path / "frame.raw"], gain=3.0)[1] == ["raw / 255 · 3, clipped to 1"]


def test_another_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.raw").write_bytes(b"0" * 10)
    with pytest.raises(DataError, match="10 bytes, but an MCR frame has 1024×1280 = 1310720"):
        check_frame_size(tmp_path / "short.raw")
