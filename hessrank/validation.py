"""Validates what a file holds against a model of it: a value or one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hessrank.errors import HessrankError
from hessrank.text import brief, printable

M = TypeVar("M", bound=BaseModel)

_WANTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of keys to values",
    "string_type": "a text",
    "string_unicode": "a name that UTF-8 can write",
    "string_too_short": "a name: it is empty",
    "string_pattern_mismatch": "a checksum (64 hexadecimal digits)",
}
_BOUNDS = {
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "{le} or less",
    "less_than": "less than {lt:g}",
    "literal_error": "one of {expected}",
    "is_instance_of": "a {class}",
}
Whole = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
Checksum = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class RecordPart(BaseModel):
    """Part of a file that hessrank wrote.

    Keys that it does not know are somebody's own, and left alone.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


def validate(cls: type[M], data: Any, *, source: str, error: type[HessrankError], remedy: str = "") -> M:
    """Return ``data`` as an object of ``cls``.

    Args:
        cls: the model.
        data: keys and values.
        source: the file, for the message.
        error: the class of the error to raise.
        remedy: what to do, at the end of the message.

    Raises:
        HessrankError: (as ``error``) the first thing that does not fit: the file, the path of keys, what is wrong.
    """
    try:
        return cls.model_validate(data)
    except ValidationError as problem:
        details: dict[str, Any] = dict(problem.errors(include_url=False)[0])
        path = printable(".".join(map(str, details["loc"])))
        place = ": ".join(part for part in (source, path) if part)
        raise error(f"{place}: {describe_misfit(details)}" + f"; {remedy}" * bool(remedy)) from problem


def describe_misfit(details: Mapping[str, Any]) -> str:
    """Return in words what pydantic found wrong with a value."""
    context = details.get("ctx", {})
    if context.get("error") is not None:
        return str(context["error"])
    if details["type"] == "missing":
        return "is missing"
    if details["type"] == "extra_forbidden":
        return "there is no such key"
    wanted = _WANTED.get(details["type"]) or str(details["msg"])
    if details["type"] in _BOUNDS:
        wanted = _BOUNDS[details["type"]].format(**context)
    return f"{brief(details['input'])} is not {'zero or more' if context.get('ge') == 0 else wanted}"
