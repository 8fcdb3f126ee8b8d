"""Values as messages show them."""

import pytest
import torch

from hessrank.text import DOTS, IN_ALL, dtype_text, first_line, joined, listed, shapes_text, size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (20_000, "19.5 KiB"), (2**20, "1.00 MiB"),
        (3.5 * 2**20, "3.50 MiB"), (5 * 2**30, "5.00 GiB"),
    ],
)  # fmt: skip
def test_the_unit_suits_the_size(count: float, text: str) -> None:
    assert size_text(count) == text


def test_a_list_says_how_many_names_it_leaves_out() -> None:
    assert listed("abcde") == "a, b, c, d, e"
    assert listed("abcdef") == "a, b, c, d, e and 1 more"
    assert listed("abcdef", 2, IN_ALL) == "a, b, … (6 in all)"
    assert listed("abcdef", 2, DOTS) == "a, b, …"
    assert listed(["{left}", "b"], 1) == "{left} and 1 more"
    assert listed([]) == ""


def test_shapes_and_types_in_a_few_words() -> None:
    assert shapes_text([torch.zeros(16, 3), torch.zeros(())]) == "16×3, a scalar"
    assert shapes_text([]) == "nothing"
    assert dtype_text(torch.bfloat16) == "bfloat16"


def test_first_line_of_a_message() -> None:
    assert first_line(ValueError("\none\n two")) == "one"
    assert first_line(ValueError()) == "ValueError"


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["head"], "head"), (["head", "tail"], "head or tail"), (["head", "middle", "tail"], "head, middle or tail")],
)
def test_a_choice_of_names_reads_as_one(names: list[str], expected: str) -> None:
    assert joined(names) == expected
