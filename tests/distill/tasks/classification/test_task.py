"""The task: its data by name, network, loss, metrics and pictures; and that a network learns the digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from hessrank.distill.tasks.base import TASKS
from hessrank.distill.tasks.classification import ClassificationTask, DigitNet, load_digits
from hessrank.errors import DataError, LossError, OptionError


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return ClassificationTask(folder=tmp_path_factory.mktemp("run"), seed=0)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A folder with ``pictures/``: three classes of color pictures 8×10."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    for part, count in (("train", 2), ("val", 1)):
        for name in ("ant", "bee", "cow"):
            place = folder / "pictures" / part / name
            place.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(rng.integers(0, 256, (8, 10, 3)).astype(np.uint8)).save(place / f"{index}.png")
    return folder


def logits(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_is_known_by_name():
    assert TASKS.resolve("classification") is ClassificationTask
    assert (ClassificationTask.monitor, ClassificationTask.mode) == ("top1", "max")


def test_digits_unless_data_are_named(digits, tmp_path):
    named = ClassificationTask("digits", folder=tmp_path, seed=0)
    assert digits.notes == ("no data named, so the built-in digits are used", *named.notes)
    for task in (digits, named):
        assert task.classes == tuple("0123456789")
        assert (len(task.training_data()), len(task.validation_data())) == (1433, 364)


def test_digits_are_neither_flipped_nor_shifted(digits):
    plain = {tuple(picture.flatten().tolist()) for picture in load_digits().training.pictures}
    assert all(tuple(digits.training_data()[k][0].flatten().tolist()) in plain for k in range(100))


def test_folder_relative_to_the_run_file(run_folder):
    task = ClassificationTask("pictures", folder=run_folder, seed=0, samples=4)
    assert task.classes == ("ant", "bee", "cow")
    assert (len(task.training_data()), len(task.validation_data())) == (4, 3)
    picture, label = task.validation_data()[2]
    original = np.asarray(Image.open(run_folder / "pictures" / "val" / "cow" / "0.png"))
    np.testing.assert_allclose(picture.permute(1, 2, 0), original / 255, atol=1e-6)
    assert label == 2
    absolute = ClassificationTask(str(run_folder / "pictures"), folder=run_folder / "elsewhere", seed=0)
    assert absolute.classes == task.classes


def test_training_pictures_of_a_folder_are_flipped_and_shifted(run_folder):
    def shown(**options):
        drawn = ClassificationTask("pictures", folder=run_folder, seed=0, **options).training_data()
        return [drawn[k][0] for k in range(60)]

    flipped, straight = shown(), shown(flip=False)
    pairs = [(a, b) for a, b in zip(flipped, straight, strict=True) if not torch.equal(a, b)]
    assert 15 < len(pairs) < 45
    assert all(torch.equal(a, b.flip(-1)) for a, b in pairs)
    assert len({tuple(picture.flatten().tolist()) for picture in straight}) > 6  # six pictures, moved by a pixel


def test_sizes_and_channels_are_passed_on(run_folder):
    task = ClassificationTask("pictures", folder=run_folder, seed=0, size=16, channels=1)
    for data in (task.training_data(), task.validation_data()):
        assert data[0][0].shape == (1, 16, 16)
    assert task.model()(task.validation_data()[0][0][None]).shape == (1, 3)


def test_data_that_are_not_there(run_folder):
    with pytest.raises(DataError) as caught:
        ClassificationTask("picture", folder=run_folder, seed=0)
    for word in (str(run_folder / "picture"), str(run_folder / "pictures"), "'digits'", "train/CLASS/*.png"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"size": 16}, {"channels": 3}], ids=str)
def test_digits_are_of_one_size(tmp_path, options):
    with pytest.raises(OptionError, match="1×8×8"):
        ClassificationTask("digits", folder=tmp_path, seed=0, **options)


def test_network_has_the_classes_and_channels_of_the_data(run_folder, digits):
    task = ClassificationTask("pictures", folder=run_folder, seed=0)
    assert task.model(width=4)(torch.rand(2, 3, 8, 10)).shape == (2, 3)
    assert task.model(classes=7).classifier.out_features == 7
    assert isinstance(digits.model(), DigitNet)
    assert ClassificationTask.model is DigitNet


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (32, 8)])
def test_network_takes_any_size(size):
    assert DigitNet(width=4, classes=5, channels=2)(torch.rand(3, 2, *size)).shape == (3, 5)


def test_network_is_small_and_can_be_traced():
    net = DigitNet().eval()
    assert sum(p.numel() for p in net.parameters()) == 14458
    traced = torch.fx.symbolic_trace(net)
    picture = torch.rand(2, 1, 8, 8)
    assert torch.equal(traced(picture), net(picture))
    assert sum(node.op == "call_function" for node in traced.graph.nodes) == 1  # the shortcut's addition


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 1, 7, 8), (1, 8, 8)])
def test_network_refuses_other_pictures(shape):
    with pytest.raises(DataError, match="×".join(map(str, shape))):
        DigitNet()(torch.rand(shape))


@pytest.mark.parametrize(
    "wrapped", [lambda z: z, lambda z: {"logits": z, "features": z[:, :1]}], ids=["bare", "named"]
)
def test_loss_and_metrics_by_hand(digits, wrapped):
    output, target = logits(5, 10), torch.tensor([3, 0, 9, 9, 1])
    by_hand = [-(z[t] - z.exp().sum().log()).item() for z, t in zip(output.double(), target, strict=True)]
    assert digits.loss(wrapped(output), target).item() == pytest.approx(np.mean(by_hand), rel=1e-6)
    metrics = digits.metrics()
    assert list(metrics) == ["top1", "loss"]
    for start, stop in ((0, 3), (3, 5)):  # batches of different sizes
        for metric in metrics.values():
            metric.update(wrapped(output[start:stop]), target[start:stop])
    assert metrics["loss"].compute().item() == pytest.approx(np.mean(by_hand), rel=1e-6)


@pytest.mark.parametrize("correct", [0, 1, 300, 301])
def test_top1_counts_exactly(digits, correct):
    target = torch.arange(301) % 10
    output = F.one_hot(target, 10).float()
    output[correct:] = output[correct:].roll(1, 1)
    top1 = digits.metrics()["top1"]
    for rows in torch.arange(301).split(64):
        top1.update(output[rows], target[rows])
    assert top1.compute().item() == np.float32(100 * correct / 301)
    top1.reset()
    top1.update(output[:1], target[:1])
    assert top1.compute().item() == (100 if correct else 0)


def test_loss_is_differentiable(digits):
    output = logits(4, 10).requires_grad_()
    target = torch.tensor([1, 2, 3, 4])
    digits.loss(output, target).backward()
    expected = (output.detach().softmax(1) - F.one_hot(target, 10)) / 4
    torch.testing.assert_close(output.grad, expected)


BAD = [
    ("label too large", torch.zeros(2, 3), torch.tensor([0, 3]), "label 3 is out of range"),
    ("label negative", torch.zeros(2, 3), torch.tensor([-1, 0]), "label -1 is out of range"),
    ("map of logits", torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]), "2×3×4×4"),
    ("no classes", torch.zeros(2), torch.tensor([0, 1]), "returns 2"),
    ("two outputs", (torch.zeros(2, 3), torch.zeros(2, 3)), torch.tensor([0, 1]), "2×3, 2×3"),
    ("no tensor", None, torch.tensor([0, 1]), "no tensor"),
    ("other batch", torch.zeros(2, 3), torch.tensor([0, 1, 2]), "want labels 2"),
    ("label maps", torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.long), "one label a picture"),
]


@pytest.mark.parametrize(("output", "target", "words"), [c[1:] for c in BAD], ids=[c[0] for c in BAD])
def test_outputs_and_labels_that_do_not_go_together(digits, output, target, words):
    for use in (digits.loss, digits.metrics()["top1"].update):
        with pytest.raises(LossError, match=words) as caught:
            use(output, target)
        assert "\n" not in str(caught.value)


def test_a_picture_tells_most_where_only_the_network_in_training_is_wrong(digits):
    right, wrong = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    label = torch.tensor([1])
    found = [
        digits.picture_interest(label, {"float": one, "quantized": other})
        for one in (right, wrong)
        for other in (right, wrong)
    ]
    assert found == [0.0, 2.0, 0.0, 1.0]


def test_panel_says_what_each_network_took_it_for(run_folder, digits):
    task = ClassificationTask("pictures", folder=run_folder, seed=0)
    picture, label = task.validation_data()[1]
    outputs = {"float": torch.tensor([[0.0, 1.0, 0.0]]), "quantized": torch.tensor([[0.0, 0.0, 0.0, 5.0]])}
    ((title, shown),) = task.panels((picture[None],), label[None], outputs).items()
    assert title == "label: bee\nfloat: bee\nquantized: 3"  # a network with a class that the data lack
    np.testing.assert_array_equal(shown, picture.permute(1, 2, 0))
    gray = digits.validation_data()[0][0]
    ((title, shown),) = digits.panels((gray[None],), torch.tensor([7]), {}).items()
    assert (title, shown.shape) == ("label: 7", (8, 8))


def test_a_network_learns_the_digits(digits):
    """Two seconds of training: nine of ten held-out digits are read."""
    torch.manual_seed(0)
    net: nn.Module = digits.model(width=8)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    data = digits.training_data()
    for batch in torch.arange(6 * len(data)).split(64):
        pictures, labels = (torch.stack(field) for field in zip(*(data[int(k)] for k in batch), strict=True))
        optimizer.zero_grad()
        digits.loss(net(pictures), labels).backward()
        optimizer.step()
    net.eval()
    top1 = digits.metrics()["top1"]
    with torch.no_grad():
        for pictures, labels in DataLoader(digits.validation_data(), batch_size=digits.validation_batch_size):
            top1.update(net(pictures), labels)
    assert top1.compute() > 90
