"""Which field is which argument, and which the target."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from hessrank.data.forward_arguments import ForwardArguments, bind_arguments
from hessrank.errors import DataError


class One(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels


class Two(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x


class Language(nn.Module):
    def forward(self, input_ids: Tensor, labels: Tensor | None = None, use_cache: bool | None = None) -> Tensor:
        return input_ids


class Whole(nn.Module):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["image"]


@pytest.mark.parametrize(
    ("model", "fields", "needs_target", "bound"),
    [
        (One(), "x", False, (("x",), {}, None)),
        (One(), ("x", "t"), False, (("x",), {}, "t")),
        (Two(), ("x", "m"), False, (("x", "m"), {}, None)),
        (Two(), ("x", "t"), True, (("x",), {}, "t")),
        (Two(), ("x", "m", "t"), False, (("x", "m"), {}, "t")),
        (Two(), {"mask": "m", "x": "x", "target": "t"}, False, ((), {"mask": "m", "x": "x"}, "t")),
        (Two(), ({"x": "x", "mask": "m"}, "t"), False, ((), {"x": "x", "mask": "m"}, "t")),
        (One(), {"images": "x", "labels": "t"}, True, ((), {"pixels": "x"}, "t")),
        (Language(), {"input_ids": "x", "labels": "t"}, True, ((), {"input_ids": "x", "use_cache": False}, "t")),
        (Whole(), {"image": "x", "label": "t"}, True, (({"image": "x"},), {}, "t")),
    ],
)
def test_fields_become_arguments_and_a_target(model: nn.Module, fields: Any, needs_target: bool, bound: Any) -> None:
    assert bind_arguments(fields, model, needs_target=needs_target) == bound


@pytest.mark.parametrize(
    ("model", "fields", "why"),
    [
        (One(), ("x", "m", "t"), r"the data has 3 fields, but forward\(pixels\) takes 1 to 1"),
        (Two(), {"x": "x", "maks": "m"}, "'mask' is meant"),
        (Two(), {"x": "x", "depth": "d", "target": "t"}, "the data has 'depth'"),
    ],
)
def test_what_does_not_fit_is_refused(model: nn.Module, fields: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        bind_arguments(fields, model, needs_target=False)


def test_a_signature_is_read() -> None:
    takes = ForwardArguments.of(Two())
    assert (takes.names, takes.required, takes.optional, takes.tensor) == (("x", "mask"), 1, ("mask",), "x")
