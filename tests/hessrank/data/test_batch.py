"""From whatever holds data to the arguments of ``forward``; every way to get it wrong has its line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.zoo import ZOO, named_vectors, noise
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from hessrank.analysis.rank import rank
from hessrank.data import load_data
from hessrank.data.batch import Batch, bind_fields, describe, make_batch, single_samples
from hessrank.data.samples import as_samples
from hessrank.errors import DataError

X, Y = noise(5, 4), torch.arange(5)


class Pairs(Dataset[Any]):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return X[index], index


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(X)


class SizedStream(Stream):
    def __len__(self) -> int:
        return 5


def _generator() -> Iterator[Tensor]:
    yield X[:3]
    yield X[3:]


@pytest.mark.parametrize(
    ("make", "first"),
    [
        pytest.param(lambda: X, X[0], id="tensor"),
        pytest.param(X.numpy, X[0], id="array"),
        pytest.param(lambda: (X, Y), (X[0], Y[0]), id="tuple"),
        pytest.param(lambda: {"x": X, "y": Y}, {"x": X[0], "y": Y[0]}, id="dict"),
        pytest.param(lambda: {"x": (X, Y)}, {"x": (X[0], Y[0])}, id="nest"),
        pytest.param(lambda: list(X), X[0], id="list-of-tensors"),
        pytest.param(lambda: list(zip(X, Y, strict=True)), (X[0], Y[0]), id="list-of-tuples"),
        pytest.param(lambda: [{"x": row} for row in X], {"x": X[0]}, id="list-of-dicts"),
        pytest.param(Pairs, (X[0], 0), id="dataset"),
        pytest.param(lambda: TensorDataset(X, Y), (X[0], Y[0]), id="tensor-dataset"),
        pytest.param(lambda: DataLoader(TensorDataset(X, Y), batch_size=2), (X[0], Y[0]), id="loader"),
        pytest.param(lambda: DataLoader([{"x": row} for row in X], batch_size=4), {"x": X[0]}, id="loader-of-dicts"),
        pytest.param(lambda: DataLoader(X, batch_size=2), X[0], id="loader-of-tensors"),
        pytest.param(_generator, X[0], id="generator-of-batches"),
        pytest.param(Stream, X[0], id="iterable-dataset"),
        pytest.param(SizedStream, X[0], id="sized-iterable-dataset"),
    ],
)
@pytest.mark.parametrize("num_samples", [None, 1, 3, 5, 99])
def test_samples_of(make, first, num_samples):
    samples = as_samples(make(), num_samples)
    assert len(samples) == min(num_samples or 5, 5)
    torch.testing.assert_close(samples[0], first)
    last = samples[len(samples) - 1]
    torch.testing.assert_close(_leaf(last), X[len(samples) - 1])


def _leaf(sample: Any) -> Tensor:
    while not isinstance(sample, Tensor):
        sample = sample["x"] if isinstance(sample, dict) else sample[0]
    return sample


def test_a_loader_is_read_no_further_than_needed():
    read: list[int] = []

    def batches() -> Iterator[Tensor]:
        for i in range(100):
            read.append(i)
            yield X[:2]

    assert len(as_samples(batches(), 3)) == 3
    assert len(read) == 2


@pytest.mark.parametrize(
    ("data", "num_samples", "message"),
    [
        pytest.param([], None, "the data set is empty", id="empty-list"),
        pytest.param(torch.zeros(0, 3), None, "no data: give tensors whose first dimension", id="empty-tensor"),
        pytest.param((), None, "no data: give tensors", id="empty-tuple"),
        pytest.param({}, None, "no data: give tensors", id="empty-dict"),
        pytest.param(iter([]), None, "the data set is empty", id="empty-iterator"),
        pytest.param(torch.tensor(1.0), None, "no data: give tensors", id="scalar"),
        pytest.param((X, 3.0), None, "no data: give tensors", id="scalar-field"),
        pytest.param((X, Y[:3]), None, "different numbers of samples: 3, 5", id="unequal"),
        pytest.param({"x": X, "y": Y[:2]}, None, "different numbers of samples: 2, 5", id="unequal-dict"),
        pytest.param({"x": X, "name": ["a", "b"]}, None, "something that is no tensor", id="words"),
        pytest.param((X, None), None, "something that is no tensor", id="none"),
        pytest.param(np.array([object()]), None, "something that is no tensor", id="objects"),
        pytest.param(3, None, "no data in a int", id="number"),
        pytest.param(None, None, "no data in a NoneType", id="nothing"),
        pytest.param(X, 0, "num_samples is 0: it should be 1 or more", id="zero"),
        pytest.param(X, -2, "num_samples is -2: it should be 1 or more", id="negative"),
        pytest.param(DataLoader(X), 0, "num_samples is 0: it should be 1 or more", id="zero-of-a-loader"),
        pytest.param(DataLoader(X), -1, "num_samples is -1: it should be 1 or more", id="negative-of-a-loader"),
    ],
)
def test_no_samples(data, num_samples, message):
    with pytest.raises(DataError, match=message) as caught:
        as_samples(data, num_samples)
    assert "\n" not in str(caught.value)


# Binding


class Takes:
    """Models by what their ``forward`` takes."""

    class One(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    class Optional(nn.Module):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return x

    class Labeled(nn.Module):
        def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
            return x

    class Cached(nn.Module):
        def forward(self, x: Tensor, use_cache: bool | None = None) -> Tensor:
            return x

    class Any(nn.Module):
        def forward(self, *xs: Tensor) -> Tensor:
            return xs[0]

    class AnyName(nn.Module):
        def forward(self, **xs: Tensor) -> Tensor:
            return xs["x"]

    class KeywordOnly(nn.Module):
        def forward(self, *, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    class Typed(nn.Module):
        def forward(self, p: Tensor) -> Tensor:
            return p

    class Reads(nn.Module):
        def forward(self, x):
            return x["image"]

    class Named(nn.Module):
        def forward(self, sample):
            return self.layer(sample)

    class Whole(nn.Module):
        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            return batch["x"]


A, B, C = noise(2, 3, seed=1), noise(2, 3, seed=2), noise(2, 3, seed=3)


class Bound(NamedTuple):
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012 - never written to
    target: Any = None


@pytest.mark.parametrize(
    ("model", "data", "needs_target", "expected"),
    [
        pytest.param(Takes.One, A, False, Bound((A,)), id="tensor"),
        pytest.param(Takes.One, (A,), False, Bound((A,)), id="tuple-of-one"),
        pytest.param(Takes.One, (A, B), False, Bound((A,), target=B), id="one-more-is-the-target"),
        pytest.param(Takes.One, (A, B), True, Bound((A,), target=B), id="target-needed"),
        pytest.param(Takes.Two, (A, B), False, Bound((A, B)), id="two"),
        pytest.param(Takes.Two, (A, B, C), True, Bound((A, B), target=C), id="two-and-target"),
        pytest.param(Takes.Optional, (A, B), False, Bound((A, B)), id="optional-taken"),
        pytest.param(Takes.Optional, (A, B), True, Bound((A,), target=B), id="optional-or-target"),
        pytest.param(Takes.Optional, (A, B, C), True, Bound((A, B), target=C), id="optional-and-target"),
        pytest.param(Takes.Any, (A, B), False, Bound((A, B)), id="any"),
        pytest.param(Takes.Any, (A, B), True, Bound((A,), target=B), id="any-and-target"),
        pytest.param(Takes.One, {"x": A}, False, Bound(kwargs={"x": A}), id="name"),
        pytest.param(Takes.One, {"x": A, "y": B}, False, Bound(kwargs={"x": A}, target=B), id="name-and-target"),
        pytest.param(Takes.One, {"x": A, "foo": B}, True, Bound(kwargs={"x": A}, target=B), id="one-more-name"),
        pytest.param(Takes.Two, {"y": A, "x": B}, False, Bound(kwargs={"x": B, "y": A}), id="order-does-not-matter"),
        pytest.param(
            Takes.Two, {"x": A, "y": B, "label": C}, True, Bound(kwargs={"x": A, "y": B}, target=C), id="y-is-taken"
        ),
        pytest.param(Takes.Labeled, {"x": A, "labels": B}, False, Bound(kwargs={"x": A}, target=B), id="own-labels"),
        pytest.param(
            Takes.Labeled, {"x": A, "labels": B}, True, Bound(kwargs={"x": A}, target=B), id="labels-needed"
        ),
        pytest.param(Takes.Cached, {"x": A}, False, Bound(kwargs={"x": A, "use_cache": False}), id="no-cache"),
        pytest.param(Takes.Cached, A, False, Bound((A,), {"use_cache": False}), id="no-cache-by-position"),
        pytest.param(Takes.KeywordOnly, {"x": A, "y": B}, False, Bound(kwargs={"x": A, "y": B}), id="keyword-only"),
        pytest.param(Takes.AnyName, {"x": A, "z": B}, False, Bound(kwargs={"x": A, "z": B}), id="any-name"),
        pytest.param(
            Takes.AnyName, {"x": A, "target": B}, True, Bound(kwargs={"x": A}, target=B), id="any-name-target"
        ),
        pytest.param(
            Takes.One, {"inputs": A, "targets": B}, True, Bound(kwargs={"x": A}, target=B), id="usual-names"
        ),
        pytest.param(Takes.One, {"Images": A, "Y": B}, False, Bound(kwargs={"x": A}, target=B), id="any-case"),
        pytest.param(Takes.One, {"samples": A}, False, Bound(kwargs={"x": A}), id="usual-name-alone"),
        pytest.param(nn.Sequential, {"x": A, "y": B}, True, Bound(kwargs={"input": A}, target=B), id="sequential"),
        pytest.param(
            Takes.Optional, {"img": A, "label": B}, True, Bound(kwargs={"x": A}, target=B), id="one-required"
        ),
        pytest.param(
            Takes.Labeled, {"inputs": A, "labels": B}, True, Bound(kwargs={"x": A}, target=B), id="usual-own-labels"
        ),
        pytest.param(Takes.Typed, {"features": A, "y": B}, True, Bound(kwargs={"p": A}, target=B), id="annotated"),
        pytest.param(Takes.Whole, {"image": A, "y": B}, True, Bound(({"image": A},), target=B), id="whole-by-type"),
        pytest.param(Takes.Reads, {"image": A, "y": B}, True, Bound(({"image": A},), target=B), id="whole-by-code"),
        pytest.param(Takes.Named, {"image": A, "y": B}, True, Bound(({"image": A},), target=B), id="whole-by-name"),
        pytest.param(Takes.One, {"image": A, "depth": B}, False, Bound(({"image": A, "depth": B},)), id="two-inputs"),
        pytest.param(Takes.One, {"odd": A, "y": B}, True, Bound(({"odd": A},), target=B), id="unusual-name"),
        pytest.param(Takes.Whole, {"x": A, "z": B}, False, Bound(({"x": A, "z": B},)), id="whole-dict"),
        pytest.param(Takes.Whole, {"x": A, "y": B}, True, Bound(({"x": A},), target=B), id="whole-dict-and-target"),
    ],
)
def test_binding(model, data, needs_target, expected):
    batch = make_batch(as_samples(data), [0, 1], model(), needs_target=needs_target)
    torch.testing.assert_close(batch.args, expected.args)
    assert set(batch.kwargs) == set(expected.kwargs)
    torch.testing.assert_close(batch.kwargs, expected.kwargs)
    assert (batch.target is None) == (expected.target is None)
    if expected.target is not None:
        torch.testing.assert_close(batch.target, expected.target)
    assert len(batch) == 2
    assert batch.samples == (0, 1)


class Half(nn.Module):
    """A network of one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


LABELED = {
    "usual": ("inputs", "targets"),
    "capitals": ("X", "Y"),
    "pictures": ("images", "labels"),
    "its own": ("x", "label"),
}


@pytest.mark.parametrize(("inputs", "labels"), LABELED.values(), ids=LABELED)
def test_named_arrays_of_labels_work(inputs: str, labels: str, tmp_path) -> None:
    x, y = noise(6, 3, seed=4), np.array([0, 1, 0, 1, 1, 0])
    np.savez(tmp_path / "labeled.npz", **{inputs: x.numpy(), labels: y})
    torch.manual_seed(0)
    model = Half()
    ranking = rank(model, load_data(str(tmp_path / "labeled.npz")), loss="cross-entropy")
    by_position = rank(model, (x, torch.from_numpy(y)), loss="cross-entropy")
    assert ranking.to_frame().equals(by_position.to_frame())


@pytest.mark.parametrize(
    "names",
    [("left", "right", "targets"), ("inputs", "images", "targets"), ("odd", "targets"), ("inputs", "classes")],
)
def test_names_that_do_not_work_are_answered_with_those_that_do(names: tuple[str, ...]) -> None:
    data = {name: torch.tensor([0, 1, 1]) if name == "targets" else noise(3, 3, seed=1) for name in names}
    with pytest.raises(DataError) as told:
        rank(Half(), data)
    message = str(told.value)
    assert "forward(x) was given one dict of" in message
    assert message.endswith("call its arguments so to have them apart, and labels 'targets'")
    assert "\n" not in message
    data["x"] = data.pop(names[0])
    rank(Half(), {name: data[name] for name in ("x", names[-1])})


@pytest.mark.parametrize(
    ("model", "data", "needs_target", "message"),
    [
        pytest.param(Takes.One, A, True, "needs a target: let the data hold", id="no-target"),
        pytest.param(Takes.Two, (A, B), True, "needs a target", id="no-field-left"),
        pytest.param(Takes.Whole, {"x": A}, True, "needs a target", id="no-target-in-dict"),
        pytest.param(Takes.One, {"x": A}, True, "needs a target", id="no-target-by-name"),
        pytest.param(Takes.One, (A, B, C), False, r"has 3 fields, but forward\(x\) takes 1 to 1", id="too-many"),
        pytest.param(Takes.Two, (A,), False, r"has 1 fields, but forward\(x, y\) takes 2 to 2", id="too-few"),
        pytest.param(
            Takes.One, {"x": A, "foo": B, "bar": C}, False, r"'foo', 'bar', which forward\(x\)", id="unknown"
        ),
        pytest.param(
            Takes.One, {"x": A, "foo": B, "y": C}, False, r"'foo', which forward\(x\)", id="unknown-and-target"
        ),
    ],
)
def test_what_does_not_bind(model, data, needs_target, message):
    with pytest.raises(DataError, match=message) as caught:
        make_batch(as_samples(data), [0, 1], model(), needs_target=needs_target)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([torch.zeros(3), torch.zeros(4)], id="shapes"),
        pytest.param([(A[0], B[0]), (A[0],)], id="lengths"),
        pytest.param([{"x": A[0]}, {"z": A[0]}], id="keys"),
        pytest.param([None, None], id="nothing"),
        pytest.param([A[0], {"x": A[0]}], id="kinds"),
    ],
)
def test_rows_that_do_not_stack(rows):
    with pytest.raises(DataError, match=r"samples \[0, 1\] do not stack into a batch") as caught:
        make_batch(rows, [0, 1], Takes.One(), needs_target=False)
    assert "\n" not in str(caught.value)


def test_map_and_single_samples():
    batch = Batch((A,), {"mask": None, "y": (B, torch.tensor(2.0))}, C, (4, 7))
    doubled = batch.map(lambda tensor: 2 * tensor)
    torch.testing.assert_close(doubled.args[0], 2 * A)
    torch.testing.assert_close(doubled.target, 2 * C)
    assert doubled.kwargs["mask"] is None
    one, two = single_samples(batch)
    assert (one.samples, two.samples) == ((4,), (7,))
    torch.testing.assert_close(two.args[0], A[1:])
    torch.testing.assert_close(two.kwargs["y"], (B[1:], torch.tensor(2.0)))
    torch.testing.assert_close(two.target, C[1:])


def test_words():
    batch = Batch((torch.zeros(1, 3, 8, 8),), {"ids": torch.zeros(1, 4, dtype=torch.int64)})
    assert describe(batch) == "float32 1×3×8×8, int64 1×4"


# All ways to hand over the same samples give the same ranking


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(lambda a, b: (a, b), id="tuple"),
        pytest.param(lambda a, b: {"b": b, "a": a}, id="dict"),
        pytest.param(lambda a, b: {"a": a.numpy(), "b": b.numpy()}, id="dict-of-arrays"),
        pytest.param(TensorDataset, id="dataset"),
        pytest.param(lambda a, b: list(zip(a, b, strict=True)), id="list-of-tuples"),
        pytest.param(lambda a, b: [{"a": x, "b": y} for x, y in zip(a, b, strict=True)], id="list-of-dicts"),
        pytest.param(lambda a, b: DataLoader(TensorDataset(a, b), batch_size=2), id="loader"),
        pytest.param(lambda a, b: (a.double(), b.double()), id="float64"),
    ],
)
def test_the_same_samples_give_the_same_ranking(shape):
    model, (a, b) = ZOO["mask_left_out"].build(), named_vectors().values()
    expected = rank(model, (a, b), max_probes=4, bits=(8,))
    got = rank(model, shape(a, b), max_probes=4, bits=(8,))
    assert got.to_frame().equals(expected.to_frame())
    assert got.info["data"]["samples_used"] == 3
    if not isinstance(shape(a, b), dict | list):
        assert got.info["data"]["sha256"] == expected.info["data"]["sha256"]


def test_num_samples_takes_the_first_ones():
    model, (a, b) = ZOO["mask_left_out"].build(), named_vectors().values()
    expected = rank(model, (a[:2], b[:2]), max_probes=4, bits=(8,)).to_frame()
    got = rank(model, (a, b), num_samples=2, max_probes=4, bits=(8,)).to_frame()
    assert got.equals(expected)
    assert (got["num_samples"] == 2).all()


def test_num_samples_of_zero_is_refused():
    with pytest.raises(DataError, match="num_samples is 0"):
        rank(ZOO["mask_left_out"].build(), tuple(named_vectors().values()), num_samples=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_broken_data_are_refused(value):
    a, b = named_vectors().values()
    a[1, 2] = value
    with pytest.raises(DataError, match="sample 1 of the data holds NaN or infinity"):
        rank(ZOO["mask_left_out"].build(), (a, b))


def test_all_arguments_in_one_field_and_the_target_in_the_other() -> None:
    """``((a, b), y)`` and ``({"a": …, "b": …}, y)``, as data sets with several inputs give them."""

    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    class Whole(nn.Module):
        def forward(self, pair: Any) -> Tensor:
            return pair[0] + pair[1]

    a, b, y = torch.ones(3), torch.zeros(3), torch.arange(3)
    nested = bind_fields([[a, b], y], Two(), needs_target=True)
    assert (nested.args, nested.kwargs, nested.target) == ((a, b), {}, y)
    named = bind_fields([{"a": a, "b": b}, y], Two(), needs_target=True)
    assert (named.args, named.kwargs, named.target) == ((), {"a": a, "b": b}, y)
    whole = bind_fields([[a, b], y], Whole(), needs_target=True)
    assert whole.args == ([a, b],)
    assert whole.target is y
    assert len(named) == 3


def test_a_misspelled_argument_is_not_taken_for_the_target() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 2)

        def forward(self, picture: Tensor, sound: Tensor | None = None) -> Tensor:
            return self.first(picture if sound is None else picture + sound)

    data = {"picture": torch.randn(2, 3), "sond": torch.randn(2, 3)}
    with pytest.raises(DataError, match=r"'sond', which forward\(picture, sound\) does not take: 'sound' is meant\?"):
        rank(Two(), data)
    rank(Two(), {"picture": torch.randn(2, 3), "digit": torch.tensor([0, 1])}, loss="cross-entropy")
