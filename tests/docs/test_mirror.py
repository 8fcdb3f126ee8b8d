"""Every module has a test file of its name in the mirrored place, or an entry that says which file tests it."""

from __future__ import annotations

import ast
import re
import tomllib

from helpers.modules import FILES, FOLDERS, name_of
from helpers.places import ROOT

TABLE = tomllib.loads((ROOT / "tests" / "docs" / "tested_elsewhere.toml").read_text(encoding="utf-8"))
MODULES = {str(path.relative_to(ROOT)): path for path in FILES if path.name != "__init__.py"}
MIRRORED = {
    str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / "tests" / folder).rglob("test_*.py")
}
ONLY_THROUGH = "only through "


def mirror_of(module: str) -> str:
    """Return where a module's test file belongs."""
    folder, _, name = module.rpartition("/")
    return f"tests/{folder}/test_{name}"


def registered_names(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """Return the names by which users find a function or class."""
    calls = (call for call in node.decorator_list if isinstance(call, ast.Call))
    registering = (call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "register")
    return {argument.value for call in registering for argument in call.args if isinstance(argument, ast.Constant)}


def own_names(module: str) -> set[str]:
    """Return the names of a module, of its public functions, classes and values, and those it registers."""
    names = {name_of(MODULES[module])}
    for node in ast.parse(FILES[MODULES[module]]).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names |= {node.name, *registered_names(node)}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_every_module_has_a_test_file_or_an_entry() -> None:
    alone = [module for module in MODULES if mirror_of(module) not in MIRRORED]
    assert sorted(TABLE["modules"]) == sorted(alone), "tests/docs/tested_elsewhere.toml"


def test_every_entry_names_a_file_that_tests_the_module() -> None:
    for module, entry in TABLE["modules"].items():
        place, _, reason = entry.removeprefix(ONLY_THROUGH).partition(": ")
        file = ROOT / place.split(" and ")[0]
        assert file.is_file(), entry
        assert reason, module
        text = file.read_text(encoding="utf-8")
        named = any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in own_names(module))
        assert named or entry.startswith(ONLY_THROUGH), f"{module}: {entry}"


def test_every_test_file_is_a_modules_or_says_what_it_tests() -> None:
    without = MIRRORED - {mirror_of(module) for module in MODULES}
    assert sorted(TABLE["extra"]) == sorted(without), "tests/docs/tested_elsewhere.toml"
    assert all(TABLE["extra"].values())
