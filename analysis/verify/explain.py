"""Explains why a prediction is off, by the orders of the measured increase.

It is d(t) = g·e t + ½ eᵀHe t² + ….

The increase at ±e and at ±e/2 separates the orders by Richardson's extrapolation: with odd and even parts o(t), v(t),
the first order is (8 o(½) − o(1))/3 (a task loss has a slope), the second (16 v(½) − v(1))/3, and what is left is
of higher order: the step is not small.
"""

from __future__ import annotations

from dataclasses import dataclass

from hessrank.analysis.rounding.measured_increase import IncreaseMeter, QuantizedTensor

FIRST_ORDER, NOT_SMALL, CLIPPING = "first-order term", "not small", "clipping"
NOT_INDEPENDENT, NOISE, OTHER_DATA, UNEXPLAINED = (
    "errors not independent",
    "noise of the draws",
    "other data",
    "unexplained",
)

FACTOR = 1.5  # prediction and measurement that are no farther apart agree
_CLIPPED = 0.1  # of the squared error, from when on clipping is a reason


@dataclass(frozen=True)
class Prediction:
    """What was predicted, and how.

    Attributes:
        value: the increase, in units of the loss.
        noise: its relative standard error.
        from_trace: whether errors counted as independent (½ · trace/n · ‖e‖²).
        same_data: whether it was made on the data that the increase is measured on.
    """

    value: float
    noise: float
    from_trace: bool
    same_data: bool


@dataclass(frozen=True)
class Parts:
    """A measured increase by orders, and the share of clipping in ‖e‖².

    The increases are in units of the loss.
    """

    first_order: float
    second_order: float
    higher_order: float
    clipping: float


def separate_orders(meter: IncreaseMeter, what: QuantizedTensor) -> Parts:
    """Measure the increase at ±e and ±e/2 and separate the orders."""
    plus, minus, half, half_minus = (float(meter.increase(what, t).mean()) for t in (1.0, -1.0, 0.5, -0.5))
    first = (8 * (half - half_minus) - (plus - minus)) / 6
    second = (16 * (half + half_minus) - (plus + minus)) / 6
    return Parts(first, second, plus - first - second, meter.clipping(what))


def find_reason(prediction: Prediction, parts: Parts) -> str:
    """Return the main reason for the difference."""
    missed = parts.second_order - prediction.value
    largest = max((parts.first_order, parts.higher_order, missed), key=abs)
    if largest == parts.first_order:
        return FIRST_ORDER
    if largest == parts.higher_order:
        return NOT_SMALL
    if parts.clipping > _CLIPPED:
        return CLIPPING
    if abs(missed) <= 3 * prediction.noise * abs(prediction.value):
        return NOISE
    if not prediction.same_data:
        return OTHER_DATA
    return NOT_INDEPENDENT if prediction.from_trace else UNEXPLAINED
