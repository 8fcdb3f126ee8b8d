"""Registries: the tables of built-in things say what the modules register, and nothing is imported too soon."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.registry_checks import check_listing_is_light, check_table

from hessrank.plugins import Registry
from hessrank.quant.registries import DISTILLATIONS, OBSERVERS, POLICY_HOLDERS, QUANTIZERS, STRATEGIES

REGISTRIES = [STRATEGIES, DISTILLATIONS, QUANTIZERS, OBSERVERS, POLICY_HOLDERS]


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.what)
def test_a_table_names_just_what_its_modules_register(registry: Registry[Any]) -> None:
    check_table(registry)


def test_listing_names_imports_nothing_heavy() -> None:
    check_listing_is_light(
        "from hessrank.quant.registries import QUANTIZERS, STRATEGIES",
        "'lsq' in QUANTIZERS and 'top-k' in list(STRATEGIES)",
        "STRATEGIES.resolve('top-k').__name__ == 'top_k'",
    )


def test_a_plugin_stands_behind_the_built_in_ones() -> None:
    registry: Registry[type] = Registry("thing", {"one": "no.such.module"})
    registry.register("two")(int)
    assert list(registry) == ["one", "two"]
    assert "one" in registry
    assert registry.resolve("two") is int
    with pytest.raises(ModuleNotFoundError):
        registry.resolve("one")
