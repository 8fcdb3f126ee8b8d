"""Which tensors of an output count."""

from __future__ import annotations

import torch

from hessrank.network.outputs import class_dim, detach, may_be_logits, named_outputs, output_tensors

A, B = torch.zeros(2, 3), torch.zeros(2, 4)


def test_scalars_and_whole_numbers_do_not_count() -> None:
    assert output_tensors((A, [torch.tensor(1.0), torch.tensor([1, 2])], {"x": B})) == [A, B]
    assert named_outputs(A) == [("", A)]


def test_what_stands_beside_the_result_counts_only_alone() -> None:
    output = {"loss": torch.zeros(2), "logits": A, "hidden_states": (B,), "aux_loss": B}
    assert [name for name, _ in named_outputs(output)] == ["logits"]
    assert [name for name, _ in named_outputs({"hidden_states": (A, B)})] == ["hidden_states"] * 2


def test_detached_tensors_are_new_leaves() -> None:
    z = A.clone().requires_grad_() * 2
    cut = detach({"z": z, "n": torch.tensor([1]), "word": "x"}, requires_grad=True)
    assert cut["z"].is_leaf
    assert cut["z"].requires_grad
    assert not cut["n"].requires_grad
    assert cut["word"] == "x"


def test_two_dimensions_may_be_logits_unless_their_name_says_no() -> None:
    assert may_be_logits("", A)
    assert not may_be_logits("", torch.zeros(2, 1))
    assert not may_be_logits("pooled", A)
    assert not may_be_logits("", torch.zeros(2, 3, 4, 4))
    assert may_be_logits("logits", torch.zeros(2, 3, 4, 4))
    assert [class_dim(torch.zeros(shape)) for shape in ((2, 3), (2, 3, 4), (2, 3, 4, 4))] == [1, 2, 1]
