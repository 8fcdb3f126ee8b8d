"""Types of the values that a policy's keys take; they check themselves.

Widths, names, coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from hessrank.errors import OptionError
from hessrank.quant.policy.errors import MisfitError, no_such
from hessrank.quant.policy.own_code import OWN_WORDS
from hessrank.quant.policy.vocabulary import (
    MQBENCH_METHODS,
    MQBENCH_OBSERVERS,
    ONLY_MQBENCH,
    method_name,
    observer_name,
    only_mqbench,
)
from hessrank.quant.registries import OBSERVERS, QUANTIZERS
from hessrank.quant.scheme import MAX_BITS, MIN_BITS, Scheme

_BITS = {"type": "integer", "minimum": MIN_BITS, "maximum": MAX_BITS}


class Keys(BaseModel):
    """Keys and values; an unknown key is refused, an empty value counts as not given."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        for key in data:
            refuse_unknown(str(key), cls.model_fields)
        return {key: value for key, value in data.items() if value is not None}


def refuse_unknown(key: str, known: Collection[str]) -> None:
    """Raise MisfitError unless ``key`` is one of ``known``."""
    if key in known:
        return
    problem = only_mqbench(key, "remove it") if key in ONLY_MQBENCH else no_such("key", key, known)
    raise MisfitError(problem, key, at_key=True)


def _width(value: object, default: Scheme) -> str:
    Scheme.parse(value, default)  # type: ignore[arg-type]  # whatever it is, it says what is wrong with it
    bits, *word = str(value).split()
    return " ".join([str(int(bits)), *word])


def _activation_width(value: object) -> str:
    text = _width(value, Scheme(8))
    if "per_channel" in text:
        per_tensor = text.replace("per_channel", "per_tensor")
        raise OptionError(
            f"{text!r}: no integer kernel has a scale per channel of an activation; write {per_tensor!r}"
        )
    return text


def _width_schema(grids: str) -> WithJsonSchema:
    bits = rf"\+?0*([{MIN_BITS}-9]|1[0-{MAX_BITS - 10}])"
    text = {"type": "string", "pattern": rf"^\s*{bits}(\s+({grids})?(affine|symmetric))?\s*$"}
    return WithJsonSchema({"anyOf": [_BITS, text]})


def _name_schema(ours: Iterable[str], theirs: Mapping[str, str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "anyOf": [{"enum": [*ours, *theirs]}, {"pattern": ".:."}]})


def _allowed(read: Callable[[object], str]) -> BeforeValidator:
    """Return what reads a name.

    It lets it be that of code only if the user allows it.
    """

    def check(text: object, info: ValidationInfo) -> str:
        name: str = (info.context or OWN_WORDS).require(read(text))
        return name

    return BeforeValidator(check)


WeightWidth = Annotated[
    str,
    BeforeValidator(lambda value: _width(value, Scheme(8, per_channel=True))),
    _width_schema("per_tensor_|per_channel_"),
]
ActivationWidth = Annotated[str, BeforeValidator(_activation_width), _width_schema("per_tensor_")]
Bits = Annotated[int, AfterValidator(lambda bits: Scheme(bits).bits), WithJsonSchema(_BITS)]
Method = Annotated[str, _allowed(method_name), _name_schema(QUANTIZERS, MQBENCH_METHODS)]
Observer = Annotated[str, _allowed(observer_name), _name_schema(OBSERVERS, MQBENCH_OBSERVERS)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
Coefficient = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Coefficients = Annotated[tuple[Coefficient, ...], Field(strict=False)]
