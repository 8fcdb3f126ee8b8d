"""The examples in docstrings run, each in an empty folder, and whatever a user names has one."""

from __future__ import annotations

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.modules import MODULES

import hessrank
from hessrank.analysis.estimators import ESTIMATORS
from hessrank.analysis.losses import LOSSES
from hessrank.distill.teacher.losses import DISTILLATION_LOSSES
from hessrank.quant.registries import DISTILLATIONS, OBSERVERS, QUANTIZERS, STRATEGIES

REGISTRIES = (ESTIMATORS, LOSSES, STRATEGIES, DISTILLATIONS, QUANTIZERS, OBSERVERS, DISTILLATION_LOSSES)
REGISTERED = [pytest.param(all_, name, id=f"{all_.what}-{name}") for all_ in REGISTRIES for name in all_]
PUBLIC = [
    "Policy", "allocate", "compare", "export_onnx", "load_data", "load_model", "make_policy", "prepare", "rank",
    "train", "verify",
]  # fmt: skip


def with_examples(node: ast.AST, name: str) -> Iterator[str]:
    """Yield the dotted names of what has an example in its docstring, in a module called ``name``."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef):
            yield from with_examples(inner, f"{name}.{inner.name}")
    if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ">>>" in (ast.get_docstring(node) or ""):
        yield name


EXAMPLES = [
    pytest.param(module, name, id=name.removeprefix("hessrank."))
    for module, text in MODULES.items()
    if ">>>" in text
    for name in with_examples(ast.parse(text), module)
]


def examples_of(text: str | None) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(text or "")


@pytest.mark.parametrize(("module", "name"), EXAMPLES)
def test_an_example_gives_what_it_says(
    module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.DocTestFinder().find(importlib.import_module(module))
    (test,) = (one for one in found if one.name == name)
    assert not any(doctest.SKIP in example.options for example in test.examples)
    told: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=told.append).failed == 0, "".join(told)


@pytest.mark.parametrize(("registry", "name"), REGISTERED)
def test_whatever_is_found_by_name_has_an_example(registry: Any, name: str) -> None:
    assert examples_of(registry.resolve(name).__doc__), f"write an `Example:` for the {registry.what} {name!r}"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_function_has_an_example_or_its_module_has(name: str) -> None:
    thing = getattr(hessrank, name)
    module = importlib.import_module(thing.__module__)
    examples = [example.source for text in (thing.__doc__, module.__doc__) for example in examples_of(text)]
    assert any(f"{name}(" in source or f"{name}." in source for source in examples)
