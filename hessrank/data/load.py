"""Loads data from a path or a name."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hessrank.bounds import MOST_SEED, check_number, check_whole
from hessrank.data.array_files import READERS, read_columns
from hessrank.data.arrays import ArraySamples
from hessrank.data.data_source import Data, describe_sample, fields_of
from hessrank.data.fingerprint import digest_files, digest_samples
from hessrank.data.images import ImageSamples
from hessrank.data.loader_plugin import load_plugin
from hessrank.data.noise import NoiseSamples
from hessrank.data.raw.camera_files import camera_frames
from hessrank.data.raw.mcr_frames import mcr_frames
from hessrank.data.raw.raw_frames import Frame, RawSamples
from hessrank.data.sample_folder import IMAGES, MCR, SUFFIXES, files_of, kind_of
from hessrank.errors import DataError
from hessrank.files.paths import existing_path, readable_file
from hessrank.files.size_limits import check_room
from hessrank.text import shape_text

RANDOM_SAMPLES = 8
"""How many random samples there are unless the user says."""
_FLOAT = 4  # bytes
_FindFrames = Callable[..., tuple[Sequence[Frame], list[str]]]


@dataclass(frozen=True)
class _Request:
    """What the user asked for, checked."""

    spec: str
    input_shape: tuple[int, ...] | None
    num_samples: int | None
    seed: int
    gain: float | None


def load_data(
    spec: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    gain: float | None = None,
) -> Data:
    """Return the samples that a path or a name stands for.

    - ``x.npy``, ``x.npz``, ``x.pt``, ``x.pth``, ``x.safetensors``: arrays whose first dimension counts the
      samples. They keep their type (uint8 stays uint8); NaN and infinity are refused.
    - an image or a folder of images: float32 in [0, 1], C×H×W, scaled and center-cropped to ``input_shape``.
    - a ``.raw`` file of MCR, a camera's RAW file (.ARW, .DNG, .NEF, …), or a folder of them: float32 in [0, 1],
      1×H×W, the mosaic as it is, exposed like the ground truth, center-cropped to ``input_shape``.
    - ``pkg.mod:loader``, ``file.py:loader``: a user's own data, as it is; ``num_samples`` is left to who reads it.
    - ``random``: standard normal float32.

    Args:
        spec: the path or the name.
        input_shape: the shape of one sample, without the batch dimension. Needed for ``random`` and for images
            of several sizes; arrays are used as they are.
        num_samples: how many to take, the first in sorted order; None takes all (``random``: 8).
        seed: of the random samples.
        gain: the amplification of RAW files, instead of the one their names say.

    Raises:
        DataError: there is no such data, it cannot be read, or an option does not fit it.
        HessrankError: a ``pkg.mod:loader`` names nothing.

    Example:
        The arrays of a file are the arguments of the network, by name:

        >>> import numpy as np
        >>> import hessrank
        >>> np.savez("pairs.npz", x=np.zeros((8, 3, 4, 4), np.float32), target=np.arange(8))
        >>> data = hessrank.load_data("pairs.npz", num_samples=5)
        >>> len(data.dataset), {name: tuple(value.shape) for name, value in data.dataset[0].items()}
        (5, {'x': (3, 4, 4), 'target': ()})
    """
    request = _check_request(os.fspath(spec), input_shape, num_samples, seed, gain)
    if request.spec == "random":
        return _load_random(request)
    if ":" in request.spec and not Path(request.spec).expanduser().exists():
        _refuse_gain(request)
        return load_plugin(request.spec)
    path = existing_path(request.spec, error=DataError)
    if path.is_dir():
        return _load_files(request, *files_of(path))
    readable_file(request.spec, error=DataError)
    if path.suffix.lower() in READERS:
        return _load_arrays(request, path)
    kind = kind_of(path)
    if kind is None:
        known = " ".join([*READERS, *(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)])
        raise DataError(f"{spec}: data of type {path.suffix or 'without a suffix'!r} is not read; known: {known}")
    return _load_files(request, kind, [path])


def _check_request(
    spec: str, shape: Sequence[int] | None, num_samples: int | None, seed: int, gain: float | None
) -> _Request:
    if shape is not None and (not shape or any(size < 1 for size in shape)):
        raise DataError(f"--input-shape {shape_text(tuple(shape))}: give the sizes of one sample, each at least 1")
    if num_samples is not None:
        check_whole("num_samples", num_samples, least=1, error=DataError)
    if gain is not None:
        check_number("gain", gain, above=0, error=DataError)
    check_whole("seed", seed, least=0, most=MOST_SEED, error=DataError)
    return _Request(spec, None if shape is None else tuple(shape), num_samples, seed, gain)


def _load_random(request: _Request) -> Data:
    if request.input_shape is None:
        raise DataError("--data random needs --input-shape, the shape of one sample: --input-shape 3,224,224")
    _refuse_gain(request)
    count = request.num_samples or RANDOM_SAMPLES
    what = f"--data random: {count} samples of {shape_text(request.input_shape)}"
    check_room(_FLOAT * count * math.prod(request.input_shape), what, error=DataError)
    samples = NoiseSamples(request.input_shape, count, request.seed)
    digest = digest_samples((samples[i] for i in range(len(samples))), source="random")
    return _make_data(request, "random", samples, digest, processing=["standard normal"], seed=request.seed)


def _load_arrays(request: _Request, path: Path) -> Data:
    _refuse_gain(request)
    samples = ArraySamples(read_columns(path), source=request.spec, num_samples=request.num_samples)
    shapes = [tuple(value.shape) for _, value in fields_of(samples[0])]
    processing = []
    if request.input_shape is not None and request.input_shape not in shapes:
        processing.append(f"used as they are, not cut to {shape_text(request.input_shape)}")
    digest = digest_samples((samples[i] for i in range(len(samples))), source=request.spec)
    return _make_data(request, "arrays", samples, digest, processing=processing)


def _load_files(request: _Request, kind: str, paths: list[Path]) -> Data:
    if kind == IMAGES:
        _refuse_gain(request)
        paths = paths[: request.num_samples]
        if request.input_shape is not None:
            what = f"--input-shape {shape_text(request.input_shape)}: one sample"
            check_room(_FLOAT * math.prod(request.input_shape), what, error=DataError)
        images = ImageSamples(paths, request.input_shape)
        return _make_data(
            request,
            kind,
            images,
            digest_files(paths),
            processing=images.processing,
            files=[path.name for path in paths],
        )
    find: _FindFrames = mcr_frames if kind == MCR else camera_frames
    frames, notes = find(paths, gain=request.gain, num_samples=request.num_samples)
    samples = RawSamples(frames, request.input_shape)
    return _make_data(
        request,
        kind,
        samples,
        digest_files(frame.path for frame in frames),
        processing=notes + samples.processing,
        files=[frame.path.name for frame in frames],
        gains=[frame.gain for frame in frames],
    )


def _refuse_gain(request: _Request) -> None:
    if request.gain is not None:
        raise DataError(f"{request.spec}: a gain applies to RAW files only; leave it out")


def _make_data(request: _Request, kind: str, samples: Any, digest: str, **details: Any) -> Data:
    description = {"kind": kind, "path": request.spec, "sha256": digest, "num_samples": len(samples)}
    return Data(samples, {**description, **describe_sample(samples[0]), **details})
