"""Camera RAW files that LibRaw reads: levels, mosaic, exposure ratio. The DNGs are made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.raw_files import save_dng

from hessrank.data import load_data
from hessrank.errors import DataError


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_data(path)
    return str(caught.value)


class TestCamera:
    @pytest.fixture(autouse=True)
    def _rawpy(self):
        pytest.importorskip("rawpy")

    @pytest.fixture
    def counts(self):
        return np.random.default_rng(0).integers(0, 4096, (64, 96), dtype=np.uint16)

    def test_levels_of_the_file_and_gain_1(self, tmp_path, counts):
        save_dng(tmp_path / "x.dng", counts)
        data = load_data(tmp_path / "x.dng")
        expected = np.maximum(counts.astype(np.float32) - 64, 0) / (4095 - 64)
        assert torch.allclose(data.dataset[0], torch.from_numpy(expected)[None], atol=1e-6)
        assert data.description["kind"] == "camera RAW files"
        assert data.description["processing"][1:] == [
            "mosaic RGGB",
            "no exposure ratio known for x.dng: gain 1 for 1 of them",
        ]

    def test_given_gain_and_crop(self, tmp_path, counts):
        save_dng(tmp_path / "x.dng", counts)
        crop = load_data(tmp_path / "x.dng", gain=2.0, input_shape=(1, 32, 30)).dataset[0]
        expected = np.minimum(np.maximum(counts.astype(np.float32) - 64, 0) / (4095 - 64) * 2, 1)
        assert torch.allclose(crop, torch.from_numpy(expected[None, 16:48, 32:62]), atol=1e-6)

    def test_mosaic_of_another_phase_is_named(self, tmp_path, counts):
        save_dng(tmp_path / "x.dng", counts, pattern=b"\1\2\0\1")
        assert "mosaic GBRG" in load_data(tmp_path / "x.dng").description["processing"]

    def test_long_exposures_are_targets_and_give_the_ratio(self, tmp_path, counts):
        for name in ("00001_00_0.1s", "00001_00_10s", "00002_00_0.04s", "00003_00_30s"):
            save_dng(tmp_path / f"{name}.dng", counts)
        data = load_data(tmp_path)
        assert data.description["files"] == ["00001_00_0.1s.dng", "00002_00_0.04s.dng", "00003_00_30s.dng"]
        assert data.description["gains"] == pytest.approx([100, 1, 1])
        assert "left out 1 long exposures, which are targets" in data.description["processing"]
        assert data.description["processing"][-1].startswith("no exposure ratio known for 00002_00_0.04s.dng, 00003")

    def test_sid_sony_levels(self, tmp_path, counts):
        """A DNG under a Sony name: LibRaw looks at the content, we at the name."""
        save_dng(tmp_path / "x.dng", counts)
        (tmp_path / "x.dng").rename(tmp_path / "00001_00_0.1s.ARW")
        data = load_data(tmp_path / "00001_00_0.1s.ARW", gain=4.0)
        expected = np.minimum(np.maximum(counts.astype(np.float32) - 512, 0) / 15871 * 4, 1)
        assert torch.allclose(data.dataset[0], torch.from_numpy(expected)[None], atol=1e-6)

    def test_frames_of_several_sizes_need_input_shape(self, tmp_path, counts):
        save_dng(tmp_path / "a.dng", counts)
        save_dng(tmp_path / "b.dng", counts[:32])
        assert "frames differ in size" in refused(tmp_path)
        assert load_data(tmp_path, input_shape=(1, 16, 16)).dataset[1].shape == (1, 16, 16)
