"""Predicted against measured, in numbers."""

from __future__ import annotations

import math

import pandas as pd

from hessrank.analysis.verify.agreement import measure_agreement


def table(predicted: list[float], measured: list[float], reason: str = "") -> pd.DataFrame:
    frame = pd.DataFrame({"predicted": predicted, "measured": measured, "reason": reason})
    return frame.assign(ratio=frame["predicted"] / frame["measured"])


def test_the_same_order_is_one_whatever_the_ratio() -> None:
    found = measure_agreement("weight", 4, table([2.0, 4.0, 6.0, 8.0], [1.0, 2.0, 3.0, 4.0], "clipping"))
    assert (found.tensor, found.bits, found.count, found.off) == ("weight", 4, 4, 4)
    assert (found.spearman, found.low, found.high, found.ratio) == (1.0, 1.0, 1.0, 2.0)


def test_the_interval_is_fishers() -> None:
    found = measure_agreement("activation", 8, table([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 1.0, 4.0, 3.0, 6.0, 5.0]))
    rho = 1 - 6 * 6 / (6 * 35)
    reach = 1.959964 * math.sqrt((1 + rho**2 / 2) / 3)
    assert math.isclose(found.spearman, rho)
    assert math.isclose(found.low, math.tanh(math.atanh(rho) - reach), rel_tol=1e-4)
    assert math.isclose(found.high, math.tanh(math.atanh(rho) + reach), rel_tol=1e-4)


def test_two_tensors_have_no_order_to_speak_of() -> None:
    assert math.isnan(measure_agreement("weight", 4, table([1.0, 2.0], [1.0, 2.0])).spearman)
