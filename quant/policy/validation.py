"""Plain values into models; what does not fit becomes one line with its place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hessrank.quant.policy.errors import MisfitError, PolicyError
from hessrank.quant.policy.fields import refuse_unknown
from hessrank.quant.policy.own_code import NOTHING, Plugins
from hessrank.quant.policy.positions import FilePositions, Path
from hessrank.text import brief
from hessrank.validation import describe_misfit

M = TypeVar("M", bound=BaseModel)

UNION_TAGS = ("<layer>", "<width>")  # steps of pydantic's that no file has


def validated(cls: type[M], data: Mapping[str, Any], places: FilePositions, plugins: Plugins = NOTHING) -> M:
    """Return ``data`` as a ``cls``.

    Args:
        cls: the model.
        data: its keys and values.
        places: where they stand.
        plugins: the code that they may name.

    Raises:
        PolicyError: the first thing in the file that does not fit, with its line and column.
    """
    try:
        return cls.model_validate(dict(data), context=plugins)
    except ValidationError as error:
        told = error.errors(include_url=False)
        blamed = {one["loc"][:depth] for one in told for depth in range(len(one["loc"]))}  # for what is in them
        found = [_placed(dict(one), places) for one in told if one["loc"] not in blamed]
        raise min(found, key=lambda one: (one.line or 0, one.column or 0)) from error


def refuse_unknown_keys(keys: Iterable[str], known: Collection[str], places: FilePositions) -> None:
    """Refuse keys at the root of a file that are none of ``known``.

    Raises:
        PolicyError: the first of them, with its place and the nearest known one.
    """
    for key in keys:
        try:
            refuse_unknown(key, known)
        except MisfitError as error:
            raise places.error(str(error), places.key(key)) from error


def _placed(told: dict[str, Any], places: FilePositions) -> PolicyError:
    cause = told.get("ctx", {}).get("error")
    steps: Path = tuple(step for step in told["loc"] if step not in UNION_TAGS)
    if isinstance(cause, MisfitError):
        path = steps + cause.path
        return places.error(str(cause), places.key(*path) if cause.at_key else places.value(*path))
    return places.error(_problem(told, steps, cause), places.value(*steps))


def _problem(told: dict[str, Any], steps: Path, cause: object) -> str:
    key = next((str(step) for step in reversed(steps) if isinstance(step, str)), "")
    if cause is not None:
        return f"{key}: {cause}"
    if told["type"] == "string_type":
        given = brief(told["input"])
        remedy = f"; if it is one, put quotes around it: '{given}'" if isinstance(told["input"], int | float) else ""
        return f"{key}: {given} is not a name{remedy}"
    return f"{key}: {describe_misfit(told)}"
