"""What a ranking is asked for, checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hessrank.bounds import MOST_SEED, check_number, check_whole
from hessrank.errors import OptionError, unknown_name
from hessrank.network.precision import read_precision

Progress = Callable[[str, int, int], None]
"""Called with a stage, how much of it is done, and of how much: ``progress("probes", 8, 64)``."""
DEFAULT_BITS = tuple(range(4, 17))


@dataclass(frozen=True)
class Options:
    """What :func:`hessrank.rank` was asked for, checked."""

    by: str
    batch_size: int
    max_probes: int
    tolerance: float
    seed: int
    bits: tuple[int, ...]
    weights: bool
    increase_probes: int
    precision: str

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_probes"):
            check_whole(name, getattr(self, name), least=1)
        if not 0 < check_number("tolerance", self.tolerance) < 1:
            raise OptionError(f"tolerance is {self.tolerance}: it should lie between 0 and 1, as 0.1")
        check_whole("increase_probes", self.increase_probes, least=0, why=" (none)")
        check_whole("seed", self.seed, least=0, most=MOST_SEED)
        read_precision(self.precision)
        wrong = [b for b in self.bits if not isinstance(b, int) or not 2 <= b <= 16]
        if wrong or not self.bits:
            raise OptionError(f"bits {wrong or 'are missing'}: bit-widths run from 2 to 16")
        known = ["trace", "mean_trace", *(f"act_increase_b{b}" for b in self.bits)]
        if self.by not in known:
            raise unknown_name("column to rank by", self.by, known)

    @property
    def by_bits(self) -> int:
        """The bit-width of the increase to rank by; 0 if it is a trace."""
        return int(self.by.removeprefix("act_increase_b")) if self.by.startswith("act_increase_b") else 0
