"""Computes the SHA-256 of the data, by which two runs are compared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import torch

from hessrank.data.data_source import Sample, fields_of
from hessrank.errors import DataError


def digest_samples(samples: Iterable[Sample], *, source: str) -> str:
    """Return the SHA-256 over names, types, shapes and values of all samples.

    It reads every sample, so it also finds out what none may hold.

    Args:
        samples: the samples, in order.
        source: where they are from, for the error message.

    Raises:
        DataError: a sample holds NaN or an infinite value.
    """
    digest = hashlib.sha256()
    for index, sample in enumerate(samples):
        for name, value in fields_of(sample):
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise DataError(f"{source}: sample {index}{' of ' + name if name else ''} holds NaN or infinity")
            digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def digest_files(paths: Iterable[Path]) -> str:
    """Return the SHA-256 over the names and the bytes of the files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(os.fsencode(f"{path.name}|{content}|"))
    return digest.hexdigest()
