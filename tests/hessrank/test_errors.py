"""Errors and names."""

from pathlib import Path

import pytest

from hessrank import errors
from hessrank.errors import HessrankError, OptionError, UnknownNameError, nearest_first, unknown_name
from hessrank.plugins import Registry, import_attribute


def test_all_errors_are_ours() -> None:
    kinds = [thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, Exception)]
    assert len(kinds) > 5
    assert all(issubclass(kind, HessrankError) for kind in kinds)


def test_the_nearest_name_comes_first() -> None:
    assert nearest_first("encoder.con1", ["decoder.conv1", "encoder.conv1", "x"])[0] == "encoder.conv1"
    assert str(unknown_name("layer", "con", ["a", "conv"])) == "no layer named 'con'; nearest is 'conv'; others: a"
    assert str(unknown_name("layer", "con", [])) == "no layer named 'con'; there are none"


def test_a_registry_resolves_names_modules_and_files(tmp_path: Path) -> None:
    registry: Registry[object] = Registry("thing")
    registry.register("one")(1)
    (tmp_path / "mine.py").write_text("class box:\n    three = 3\n")
    assert list(registry) == ["one"]
    assert registry.resolve("one") == 1
    assert registry.resolve_or_import("math:pi") == pytest.approx(3.14159, abs=1e-5)
    assert registry.resolve_or_import(f"{tmp_path}/mine.py:box.three") == 3


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("two", UnknownNameError, "no thing named 'two'; nearest is 'one'"),
        ("math:pie", UnknownNameError, "no thing in math named 'pie'; nearest is 'pi'"),
        ("no_such_module:x", UnknownNameError, "no module named 'no_such_module'"),
        ("nowhere.py:x", UnknownNameError, "nowhere.py: there is no such file"),
        (":x", OptionError, "write pkg.module:name or file.py:name"),
    ],
)
def test_wrong_references_are_explained(reference: str, error: type[Exception], message: str) -> None:
    registry: Registry[object] = Registry("thing")
    registry.register("one")(1)
    with pytest.raises(error, match=message):
        registry.resolve_or_import(reference)


def test_a_missing_import_inside_a_users_module_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_thing_at_all\n")
    with pytest.raises(OptionError, match=r"importing it raised ModuleNotFoundError: .*no_such_thing_at_all"):
        import_attribute(f"{tmp_path}/broken.py:x", what="thing")


def test_a_file_may_import_its_neighbors_and_two_may_have_one_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"blocks_{name}.py").write_text(f"value = {name!r}\n")
        (tmp_path / name / "net.py").write_text(f"from blocks_{name} import value\n")
    found = [import_attribute(f"{tmp_path}/{name}/net.py:value", what="thing") for name in ("a", "b", "a")]
    assert found == ["a", "b", "a"]
