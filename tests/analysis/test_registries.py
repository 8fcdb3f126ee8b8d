"""Registries of estimators, losses and tasks: tables that name what modules register, and import nothing."""

import subprocess
import sys
from typing import Any

import pytest

from hessrank.analysis.registries import ESTIMATORS, LOSSES
from hessrank.distill.tasks.base import TASKS
from hessrank.plugins import Registry


@pytest.mark.parametrize("registry", [ESTIMATORS, LOSSES, TASKS], ids=lambda registry: registry.what)
def test_a_table_names_just_what_its_modules_register(registry: Registry[Any]) -> None:
    names = list(registry)
    modules = [registry.resolve(name).__module__ for name in names]
    assert modules == [registry._modules[name] for name in names]
    assert list(registry) == names


def test_listing_names_imports_no_torch() -> None:
    program = (
        "import sys\n"
        "from hessrank.analysis.registries import ESTIMATORS, LOSSES\n"
        "assert 'exact' in ESTIMATORS and 'mse' in list(LOSSES)\n"
        "assert not {'torch', 'numpy', 'pandas'} & set(sys.modules)\n"
        "assert ESTIMATORS.resolve('exact').__name__ == 'Exact'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
