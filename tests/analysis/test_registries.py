"""Registries of estimators, losses and tasks: tables that name what modules register, and import nothing."""

from typing import Any

import pytest
from helpers.registry_checks import check_listing_is_light, check_table

from hessrank.analysis.registries import ESTIMATORS, LOSSES
from hessrank.distill.tasks.base import TASKS
from hessrank.plugins import Registry


@pytest.mark.parametrize("registry", [ESTIMATORS, LOSSES, TASKS], ids=lambda registry: registry.what)
def test_a_table_names_just_what_its_modules_register(registry: Registry[Any]) -> None:
    check_table(registry)


def test_listing_names_imports_no_torch() -> None:
    check_listing_is_light(
        "from hessrank.analysis.registries import ESTIMATORS, LOSSES",
        "'exact' in ESTIMATORS and 'mse' in list(LOSSES)",
        "ESTIMATORS.resolve('exact').__name__ == 'Exact'",
    )
