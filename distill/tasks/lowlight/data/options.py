"""What a run file may say of the low-light data, checked."""

from __future__ import annotations

from dataclasses import dataclass

from hessrank.distill.tasks.lowlight.data.pattern import checked_pattern
from hessrank.distill.tasks.lowlight.network import SIZE_MULTIPLE
from hessrank.errors import OptionError, unknown_name

SPLITS = ("val", "test")
"""Lists of SID that training never sees."""


@dataclass(frozen=True)
class LowLightOptions:
    """How to read low-light data.

    Attributes:
        seed: of all randomness.
        patch: side of training squares, a multiple of 32; None for the data's own default.
        samples: items in an epoch; None for the data's own default.
        ratio: exposure ratio of the built-in photographs' validation; the largest amplification of SID.
        pattern: color filters that the network sees.
        cache: targets to keep in memory, in each process that reads.
        split: list of SID to judge with, ``val`` or ``test``.

    Raises:
        OptionError: a value is out of range or of another type.
        UnknownNameError: there is no such pattern or split.
    """

    seed: int = 0
    patch: int | None = None
    samples: int | None = None
    ratio: float = 300.0
    pattern: str = "RGGB"
    cache: int = 8
    split: str = SPLITS[0]

    def __post_init__(self) -> None:
        _check_whole("patch", self.patch, least=SIZE_MULTIPLE, multiple=SIZE_MULTIPLE)
        _check_whole("samples", self.samples, least=1)
        _check_whole("cache", self.cache, least=0)
        if not isinstance(self.ratio, int | float) or not 1 <= self.ratio < float("inf"):
            raise OptionError(f"ratio is {self.ratio!r}; it has to be a number of at least 1")
        checked_pattern(str(self.pattern))
        if self.split not in SPLITS:
            raise unknown_name("split to judge with", str(self.split), SPLITS)


def _check_whole(name: str, value: int | None, *, least: int, multiple: int = 1) -> None:
    if value is None:
        return
    if not isinstance(value, int) or value < least or value % multiple:
        what = f"a multiple of {multiple}" if multiple > 1 else "a whole number"
        raise OptionError(f"{name} is {value!r}; it has to be {what}, at least {least}")
