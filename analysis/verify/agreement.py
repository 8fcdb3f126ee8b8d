"""Measures how well predicted increases agree with measured ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
from scipy.stats import spearmanr

from hessrank.analysis.statistics import critical_value


@dataclass(frozen=True)
class PredictionAgreement:
    """How well the prediction orders the tensors of one kind at one bit-width.

    Attributes:
        tensor: ``activation`` or ``weight``.
        bits: the bit-width.
        count: how many tensors.
        spearman: rank correlation of predicted and measured increases.
        low: lower end of its 95 % interval (Bonett & Wright 2000).
        high: upper end.
        ratio: median of predicted / measured.
        off: how many are off by more than a factor of 1.5.
    """

    tensor: str
    bits: int
    count: int
    spearman: float
    low: float
    high: float
    ratio: float
    off: int


def measure_agreement(tensor: str, bits: int, part: pd.DataFrame) -> PredictionAgreement:
    """Measure how well the increases of some tensors are predicted.

    Args:
        tensor: ``activation`` or ``weight``.
        bits: their bit-width.
        part: their rows of a verification's table.
    """
    count = len(part)
    order = float(spearmanr(part["predicted"], part["measured"]).statistic) if count > 2 else math.nan
    low, high = _spearman_interval(order, count)
    ratio = part["ratio"][part["ratio"] > 0].median()
    return PredictionAgreement(tensor, bits, count, order, low, high, float(ratio), int((part["reason"] != "").sum()))


def _spearman_interval(order: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a rank correlation, by Fisher's z.

    The variance of z is (1 + ρ²/2)/(n − 3).
    """
    if count <= 3 or math.isnan(order) or abs(order) >= 1:
        return order, order
    reach = critical_value(10**6) * math.sqrt((1 + order**2 / 2) / (count - 3))
    return math.tanh(math.atanh(order) - reach), math.tanh(math.atanh(order) + reach)
