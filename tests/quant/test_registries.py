"""Registries: the tables of built-in things say what the modules register, and nothing is imported too soon."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from hessrank.plugins import Registry
from hessrank.quant.registries import DISTILLATIONS, OBSERVERS, POLICY_HOLDERS, QUANTIZERS, STRATEGIES

REGISTRIES = [STRATEGIES, DISTILLATIONS, QUANTIZERS, OBSERVERS, POLICY_HOLDERS]


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.what)
def test_a_table_names_just_what_its_modules_register(registry: Registry[Any]) -> None:
    names = list(registry)
    modules = [registry.resolve(name).__module__ for name in names]
    assert modules == [registry._modules[name] for name in names]
    assert list(registry) == names


def test_listing_names_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from hessrank.quant.registries import QUANTIZERS, STRATEGIES\n"
        "assert 'lsq' in QUANTIZERS and 'top-k' in list(STRATEGIES)\n"
        "assert not {'torch', 'numpy', 'pandas'} & set(sys.modules)\n"
        "assert STRATEGIES.resolve('top-k').__name__ == 'top_k'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_plugin_stands_behind_the_built_in_ones() -> None:
    registry: Registry[type] = Registry("thing", {"one": "no.such.module"})
    registry.register("two")(int)
    assert list(registry) == ["one", "two"]
    assert "one" in registry
    assert registry.resolve("two") is int
    with pytest.raises(ModuleNotFoundError):
        registry.resolve("one")
