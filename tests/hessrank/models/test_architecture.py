"""The code that ``--arch`` names, called."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from hessrank.errors import HessrankError, LoadError, OptionError, UnknownNameError
from hessrank.models import load_model

CODE = """
from torch import nn
def make(size=2, **rest): return nn.Linear(size, size, **rest)
def exits(): raise SystemExit(3)
def fails(): raise ValueError("no such\\nvariant")
def nothing(): pass
ready = nn.Linear(2, 2)
number = 3
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


@pytest.fixture
def code(tmp_path: Path) -> str:
    (tmp_path / "arch_code.py").write_text(CODE)
    return str(tmp_path / "arch_code.py")


def fails(error: type[HessrankError], path: Path, **kwargs) -> str:
    with pytest.raises(error) as caught:
        load_model(path, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_function_in_a_file(weights, code):
    loaded = load_model(weights, arch=f"{code}:make")
    assert loaded.arch == f"{code}:make"
    assert torch.equal(loaded.model.weight, torch.load(weights)["weight"])


def test_class_in_a_module_with_arguments(weights):
    loaded = load_model(weights, arch="torch.nn:Linear", arch_args={"in_features": 2, "out_features": 2})
    assert loaded.arch_args == {"in_features": 2, "out_features": 2}
    assert isinstance(loaded.model, nn.Linear)


def test_callable_is_named_in_the_result(weights):
    assert load_model(weights, arch=nn.Linear, arch_args={"in_features": 2, "out_features": 2}).arch == (
        "torch.nn.modules.linear:Linear"
    )


def test_module_instead_of_a_factory_is_copied(weights):
    ready = nn.Linear(2, 2)
    before = ready.weight.detach().clone()
    loaded = load_model(weights, arch=ready)
    assert not torch.equal(loaded.model.weight, before)
    assert torch.equal(ready.weight, before)
    assert ready.training


def test_module_in_a_file(weights, code):
    assert isinstance(load_model(weights, arch=f"{code}:ready").model, nn.Linear)


def test_module_takes_no_arguments(weights, code):
    assert "a module already" in fails(OptionError, weights, arch=f"{code}:ready", arch_args={"size": 2})


def test_factory_that_raises(weights, code):
    assert "raised ValueError: no such" in fails(LoadError, weights, arch=f"{code}:fails")


def test_factory_that_exits(weights, code):
    assert "calling it raised SystemExit: 3" in fails(LoadError, weights, arch=f"{code}:exits")


def test_script_that_exits_when_imported(weights, tmp_path):
    (tmp_path / "script.py").write_text("import sys\nsys.exit(2)\n")
    assert "importing it raised SystemExit: 2" in fails(LoadError, weights, arch=f"{tmp_path / 'script.py'}:f")


def test_factory_on_the_meta_device(weights, code):
    message = fails(LoadError, weights, arch=f"{code}:make", arch_args={"device": "meta"})
    assert "Cannot copy out of meta tensor" in message


def test_module_that_cannot_be_copied(weights):
    ready = nn.Linear(2, 2)
    ready.lock = threading.Lock()
    assert "this module cannot be copied" in fails(LoadError, weights, arch=ready)


@pytest.mark.parametrize("arch_args", [[1], "size", 3])
def test_arguments_without_names(weights, code, arch_args):
    assert "--arch-args: this is a" in fails(OptionError, weights, arch=f"{code}:make", arch_args=arch_args)


def test_wrong_arguments_show_what_it_takes(weights, code):
    message = fails(LoadError, weights, arch=f"{code}:make", arch_args={"width": 3})
    assert '{"width": 3}' in message
    assert "it takes (size=2, **rest)" in message


def test_factory_that_returns_nothing(weights, code):
    assert "returned None, not an nn.Module" in fails(LoadError, weights, arch=f"{code}:nothing")


def test_neither_factory_nor_module(weights, code):
    assert "this is an int" in fails(LoadError, weights, arch=f"{code}:number")


def test_unknown_name_names_the_nearest(weights, code):
    assert "nearest is 'make'" in fails(UnknownNameError, weights, arch=f"{code}:maek")


def test_reference_without_a_colon(weights):
    assert "pkg.module:name" in fails(OptionError, weights, arch="torch.nn")


def test_missing_file(weights):
    assert "no such file" in fails(UnknownNameError, weights, arch="nowhere.py:make")


def test_file_with_a_syntax_error(weights, tmp_path):
    (tmp_path / "broken.py").write_text("def f(:\n")
    assert "importing it raised SyntaxError" in fails(LoadError, weights, arch=f"{tmp_path / 'broken.py'}:f")


def test_lazy_module_takes_shapes_from_the_file(weights):
    loaded = load_model(weights, arch=lambda: nn.LazyLinear(2))
    assert loaded.model.weight.shape == (2, 2)
