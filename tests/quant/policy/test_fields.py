"""Values that a policy's keys take."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from hessrank.quant.policy.errors import MisfitError
from hessrank.quant.policy.fields import ActivationWidth, Bits, Coefficient, Keys, WeightWidth, refuse_unknown


class Two(Keys):
    a: int = 1
    b: int = 2


def test_an_empty_value_counts_as_not_given_and_an_unknown_key_is_refused() -> None:
    assert Two.model_validate({"a": None, "b": 3}) == Two(b=3)
    with pytest.raises(ValidationError, match="no key named 'c'"):
        Two.model_validate({"c": 1})
    with pytest.raises(MisfitError, match="nearest is 'weight'"):
        refuse_unknown("wieght", ["weight", "activation"])


def test_widths_are_written_one_way() -> None:
    weight, activation = TypeAdapter(WeightWidth), TypeAdapter(ActivationWidth)
    assert weight.validate_python(10) == "10"
    assert weight.validate_python(" 08  per_channel_affine ") == "8 per_channel_affine"
    assert activation.validate_python("8 symmetric") == "8 symmetric"
    with pytest.raises(ValidationError, match="write '8 per_tensor_affine'"):
        activation.validate_python("8 per_channel_affine")


@pytest.mark.parametrize(("kind", "value"), [(Bits, 1), (Bits, 17), (Coefficient, -0.1), (Coefficient, float("inf"))])
def test_what_is_out_of_range_is_refused(kind: object, value: float) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(value)
