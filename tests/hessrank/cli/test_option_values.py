"""The words of options, read."""

from __future__ import annotations

import pytest

from hessrank.cli.option_values import read_arch_args, read_bits, read_shape
from hessrank.errors import OptionError


def test_words_are_read_and_none_stays_none() -> None:
    assert read_shape("3,224,224") == read_shape("3x224×224") == (3, 224, 224)
    assert read_bits("4,8") == (4, 8)
    assert read_arch_args('{"width": 8, "deep": {"a": 0.5}}') == {"width": 8, "deep": {"a": 0.5}}
    assert (read_shape(None), read_bits(None), read_arch_args(None)) == (None, (), None)


@pytest.mark.parametrize("text", ["", "3,,4", "0,3", "three"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="write the shape of one sample, as 3,224,224"):
        read_shape(text)


def test_what_is_no_list_of_bits_is_refused() -> None:
    with pytest.raises(OptionError, match="--bits 'four': write bit-widths from 2 to 16, as 4,8"):
        read_bits("four")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1]", "write a JSON object"),
        ("{width: 8}", "not JSON"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": 1e999}', "1e999 is no number"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_object_is_refused(text: str, why: str) -> None:
    with pytest.raises(OptionError, match=why) as caught:
        read_arch_args(text)
    assert len(str(caught.value)) < 250
