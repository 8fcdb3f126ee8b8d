"""Where keys and values stand."""

from __future__ import annotations

from hessrank.quant.policy.positions import FilePosition, FilePositions, PositionElsewhere

ROOT, KEY, VALUE, ITEM = FilePosition(1, 1), FilePosition(3, 3), FilePosition(3, 9), FilePosition(4, 5)
PLACES = FilePositions(
    "policy.yaml", {("a", "b"): KEY}, {(): ROOT, ("a",): ROOT, ("a", "b"): VALUE, ("a", "b", 0): ITEM}
)


def test_what_the_file_does_not_have_stands_where_its_surroundings_do() -> None:
    assert PLACES.key("a", "b") == KEY
    assert PLACES.value("a", "b", 0) == ITEM
    assert PLACES.value("a", "b", 7) == VALUE
    assert PLACES.key("a", "other") == ROOT
    assert FilePositions().key("a") is None


def test_an_error_names_file_line_and_column() -> None:
    assert str(PLACES.error("is wrong", VALUE)) == "policy.yaml:3:9: is wrong"
    assert str(PLACES.error("is wrong")) == "policy.yaml: is wrong"
    elsewhere = PositionElsewhere.of(VALUE, "run.yaml")
    assert str(PLACES.error("is wrong", elsewhere)) == "run.yaml:3:9: is wrong"
    assert PositionElsewhere.of(elsewhere, "other.yaml").file == "run.yaml"


def test_a_files_own_key_stands_over_the_others() -> None:
    other = FilePositions("base.yaml", {}, {("a",): FilePosition(9, 9), ("c",): FilePosition(8, 8)})
    both = PLACES.over(other)
    assert both.value("a") == ROOT
    assert str(both.error("is wrong", both.value("c"))) == "base.yaml:8:8: is wrong"
    assert PLACES.below("a").value("b") == VALUE
