"""JSON objects that have each of their keys once."""

from __future__ import annotations

from typing import Any

from hessrank.text import brief


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; for ``object_pairs_hook`` of :func:`json.loads`.

    Args:
        pairs: its keys and values, in the order of the text.

    Raises:
        ValueError: a key is there twice; Python's own reading would keep the last value, and say nothing.

    Example:
        >>> import json
        >>> json.loads('{"a": 1, "a": 2}', object_pairs_hook=unique_keys)
        Traceback (most recent call last):
        ValueError: the key 'a' is there twice
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {brief(key)} is there twice")
        found[key] = value
    return found
