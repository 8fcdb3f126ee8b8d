"""The words of a policy's values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hessrank.errors import OptionError
from hessrank.quant.scheme import WORDS, Scheme

DEFAULT = Scheme(8, per_channel=True)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("10 per_channel_affine", Scheme(10, per_channel=True)),
        ("10 per_tensor_affine", Scheme(10)),
        ("4 per_tensor_symmetric", Scheme(4, symmetric=True)),
        (" 3  per_channel_symmetric ", Scheme(3, per_channel=True, symmetric=True)),
        (6, Scheme(6, per_channel=True)),
        ("6", Scheme(6, per_channel=True)),
        ("6 symmetric", Scheme(6, per_channel=True, symmetric=True)),
    ],
    ids=str,
)
def test_a_value_is_bits_and_a_grid(text: str | int, scheme: Scheme) -> None:
    assert Scheme.parse(text, DEFAULT) == scheme


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (1, "1 bits"),
        ("17 per_tensor_affine", "17 bits"),
        ("-4", "-4 bits"),
        ("8 per_tensr_affine", "nearest is 'per_tensor_affine'"),
        ("eight", "write bits"),
        ("8.5", "write bits"),
        ("", "write bits"),
        (True, "write bits"),
        ("8 per_tensor_affine twice", "write bits"),
    ],
    ids=repr,
)
def test_anything_else_is_refused(text: str | int, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        Scheme.parse(text, DEFAULT)


@given(st.integers(2, 16), st.sampled_from(WORDS))
def test_what_is_printed_is_read_again(bits: int, word: str) -> None:
    scheme = Scheme.parse(f"{bits} {word}", Scheme(8))
    assert str(scheme) == f"{bits} {word}"
    assert Scheme.parse(str(scheme), Scheme(2, symmetric=True)) == scheme


@pytest.mark.parametrize(
    ("scheme", "low", "high"),
    [
        (Scheme(8), 0, 255),
        (Scheme(10), 0, 1023),
        (Scheme(8, symmetric=True), -127, 127),
        (Scheme(2, symmetric=True), -1, 1),
        (Scheme(2), 0, 3),
    ],
    ids=str,
)
def test_the_integers_of_a_grid(scheme: Scheme, low: int, high: int) -> None:
    assert (scheme.quant_min, scheme.quant_max) == (low, high)
