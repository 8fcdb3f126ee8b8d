"""JSON objects that have each key once, or an error that names the one that is there twice."""

import json

import pytest

from hessrank.json_keys import unique_keys


def test_an_object_is_what_json_reads() -> None:
    text = '{"a": {"b": [1, null]}, "c": "a"}'
    assert json.loads(text, object_pairs_hook=unique_keys) == json.loads(text)


@pytest.mark.parametrize("text", ['{"b": 1, "a": 1, "a": 1}', '[{"c": {"a": 1, "b": 2, "a": 3}}]'])
def test_a_key_that_is_there_twice_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="the key 'a' is there twice"):
        json.loads(text, object_pairs_hook=unique_keys)
