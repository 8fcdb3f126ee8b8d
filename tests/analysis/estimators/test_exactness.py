"""Every estimator against torch.func's exact Hessian, on a table of small float64 networks."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.small_networks import CASES, Case, Gate, TwoOutputs, allow_double_backward, exact_traces
from torch import Tensor, nn

from hessrank.analysis.estimators import ESTIMATORS, Weight, Work
from hessrank.analysis.estimators.probes import Hadamard, Probes, Rademacher
from hessrank.analysis.losses import make_loss
from hessrank.analysis.rank import rank
from hessrank.data.batch import Batch
from hessrank.network.frozen_model import freeze
from hessrank.network.layer_facts import SampleAxis
from hessrank.network.network import Network

CURVED_LOSSES = ["cross-entropy", "custom"]
by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def quartic(output: Tensor, target: Tensor) -> Tensor:
    """A loss of which hessrank knows no factor."""
    wanted = F.one_hot(target, 3).to(output)
    return ((output - wanted) ** 2).sum() + 0.1 * ((output - wanted) ** 4).sum()


def self_kl(output: Tensor, target: Tensor) -> Tensor:
    return F.kl_div(output.log_softmax(1), target.log_softmax(1), reduction="batchmean", log_target=True)


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target)


LOSSES: dict[str, Any] = {"self": self_kl, "cross-entropy": cross_entropy, "custom": quartic}


def mean_estimates(
    model: nn.Module,
    batch: Batch,
    loss: str,
    estimator: str,
    probes: Probes,
    count: int,
    *,
    weights: bool = False,
    copies: int = 1,
) -> dict[str, np.ndarray]:
    """Return the mean over ``count`` probes for each layer (and weight, as ``weight of …``) and sample."""
    with freeze(model):
        network = Network(model, batch)
        names = [layer.name for layer in network.layers]
        held = _weights(network, batch) if weights else []
        axes = dict.fromkeys(names, SampleAxis())
        made = make_loss(quartic if loss == "custom" else loss)
        work = Work(network, made, batch, probes, range(count), names, held, axes, copies)
        found = list(ESTIMATORS.resolve(estimator)()(work))
    layers = torch.stack([one.layers for one in found]).mean(0).numpy()
    rows = dict(zip(names, layers, strict=True))
    if weights:
        rows |= {f"weight of {w.calls[0]}": v for w, v in zip(held, found[0].weights.numpy(), strict=True)}
        rows |= {
            f"weight of {w.calls[0]}": torch.stack([one.weights[i] for one in found]).mean(0).numpy()
            for i, w in enumerate(held)
        }
    return rows


def _weights(network: Network, batch: Batch) -> list[Weight]:
    from hessrank.network.weights import find_weights

    return find_weights(network, batch)


def assert_equal(found: dict[str, np.ndarray], exact: dict[str, list[float]], rtol: float = 1e-9) -> None:
    assert exact
    for name, traces in exact.items():
        np.testing.assert_allclose(found[name], traces, rtol=rtol, atol=1e-12, err_msg=name)


def hadamard_rows(model: nn.Module, x: Tensor) -> int:
    sizes = [x[0].numel()]
    handles = [m.register_forward_hook(lambda m, a, out: sizes.append(out[0].numel())) for m in model.modules()]
    model(x[:1])
    for handle in handles:
        handle.remove()
    return Hadamard.rows(max(sizes))


@by_name
@pytest.mark.parametrize("loss", LOSSES)
def test_hutchinson_with_hadamard_probes_is_the_exact_hessian(case: Case, loss: str) -> None:
    model, x, labels = case.make()
    target = None if loss == "self" else labels
    batch = Batch((x,), target=target, samples=(0, 1))
    found = mean_estimates(model, batch, loss, "hutchinson", Hadamard(), hadamard_rows(model, x))
    assert_equal(found, exact_traces(model, x, LOSSES[loss], target))


@by_name
@pytest.mark.parametrize(("estimator", "count"), [("gauss-newton", 4), ("exact", 1)])
def test_first_order_is_the_exact_hessian_of_the_self_loss(case: Case, estimator: str, count: int) -> None:
    model, x, _ = case.make()
    batch = Batch((x,), samples=(0, 1))
    found = mean_estimates(model, batch, "self", estimator, Hadamard(), count)
    assert_equal(found, exact_traces(model, x, LOSSES["self"], None), case.rtol)


@by_name
@pytest.mark.parametrize(("estimator", "count"), [("gauss-newton", 5), ("exact", 1)])
@pytest.mark.parametrize("loss", ["self", "custom"])  # with a factor S and without
def test_copies_of_the_samples_change_nothing(case: Case, loss: str, estimator: str, count: int) -> None:
    model, x, labels = case.make()
    batch = Batch((x,), target=None if loss == "self" else labels, samples=(0, 1))
    alone, beside = (
        mean_estimates(model, batch, loss, estimator, Rademacher(0), count, weights=True, copies=copies)
        for copies in (1, 3)
    )
    assert_equal(beside, {name: list(values) for name, values in alone.items()}, case.rtol)


@pytest.mark.parametrize("case", [c for c in CASES if c.flat], ids=lambda case: case.name)
@pytest.mark.parametrize("loss", CURVED_LOSSES)
@pytest.mark.parametrize(("estimator", "count"), [("gauss-newton", 4), ("exact", 1)])
def test_first_order_is_the_exact_hessian_where_all_is_piecewise_linear(
    case: Case, loss: str, estimator: str, count: int
) -> None:
    model, x, labels = case.make()
    batch = Batch((x,), target=labels, samples=(0, 1))
    found = mean_estimates(model, batch, loss, estimator, Hadamard(), count)
    assert_equal(found, exact_traces(model, x, LOSSES[loss], labels))


def test_gauss_newton_is_not_the_hessian_of_a_task_loss_before_a_gelu() -> None:
    model, x, labels = next(c for c in CASES if c.name == "gelu").make()
    batch = Batch((x,), target=labels, samples=(0, 1))
    found = mean_estimates(model, batch, "cross-entropy", "exact", Hadamard(), 1)
    exact = exact_traces(model, x, cross_entropy, labels)
    assert np.abs(found["0"] / np.array(exact["0"]) - 1).max() > 0.05
    np.testing.assert_allclose(found["3"], exact["3"], rtol=1e-9)


@by_name
def test_weight_traces_are_exact(case: Case) -> None:
    model, x, _ = case.make()
    batch = Batch((x,), samples=(0, 1))
    found = mean_estimates(model, batch, "self", "exact", Hadamard(), 1, weights=True)
    own = model(x).detach()
    held = {n: p for n, p in model.named_parameters() if n.endswith("weight") and p.ndim > 1}
    assert held
    for name, weight in held.items():

        def value(w: Tensor, name: str = name, i: int = 0) -> Tensor:
            return self_kl(torch.func.functional_call(model, {name: w}, (x[i : i + 1],)), own[i : i + 1])

        for i in range(2):
            with allow_double_backward():
                hessian = torch.func.jacrev(torch.func.jacrev(lambda w, i=i: value(w, i=i)))(weight.detach())
            trace = float(hessian.detach().reshape(weight.numel(), -1).trace())
            found_trace = found[f"weight of {name.removesuffix('.weight')}"][i]
            np.testing.assert_allclose(found_trace, trace, rtol=case.rtol)


@by_name
def test_hutchinson_weight_traces_are_those_of_exact(case: Case) -> None:
    model, x, _ = case.make()
    batch = Batch((x,), samples=(0, 1))
    exact = mean_estimates(model, batch, "self", "exact", Hadamard(), 1, weights=True)
    rows = Hadamard.rows(max(p.numel() for p in model.parameters()))
    found = mean_estimates(
        model, batch, "self", "hutchinson", Hadamard(), max(rows, hadamard_rows(model, x)), weights=True
    )
    assert_equal(found, {name: list(v) for name, v in exact.items() if name.startswith("weight")}, case.rtol)


@by_name
@pytest.mark.parametrize("loss", ["self", "cross-entropy"])
@pytest.mark.parametrize("estimator", ["auto", "hutchinson", "pyhessian"])
def test_random_probes_agree_within_four_standard_errors(case: Case, loss: str, estimator: str) -> None:
    model, x, labels = case.make()
    one, target = x[:1], labels[:1]
    data = one if loss == "self" else (one, target)
    ranking = rank(model, data, loss=loss, estimator=estimator, max_probes=256, tolerance=1e-6, seed=1, weights=False)
    exact = exact_traces(model, one, LOSSES[loss], None if loss == "self" else target)
    frame = ranking.to_frame().set_index("layer")
    for name, (trace,) in exact.items():
        distance = abs(frame.loc[name, "trace"] - trace)
        assert distance <= 4 * frame.loc[name, "sem"] + 1e-6 * abs(trace), name


def test_several_outputs_add_up_and_in_place_layers_are_right() -> None:
    torch.manual_seed(0)
    model, x = TwoOutputs().double(), torch.randn(2, 1, 4, 4, dtype=torch.float64)

    def loss(output: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
        return (output[0] - target[0]).square().mean() + self_kl(output[1], target[1])

    found = mean_estimates(model, Batch((x,), samples=(0, 1)), "self", "gauss-newton", Hadamard(), 64)
    assert_equal(found, exact_traces(model, x, loss, None))


def test_a_negative_trace_keeps_its_sign() -> None:
    torch.manual_seed(3)
    model = Gate().double()
    x = torch.randn(6, 5, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    exact = {n: np.mean(v) for n, v in exact_traces(model, x, cross_entropy, labels).items()}
    negative = [name for name, trace in exact.items() if trace < 0]
    assert negative
    ranking = rank(model, (x, labels), loss="cross-entropy", max_probes=64)
    for name in negative:
        assert ranking[name]["trace"] < 0
    assert any("negative" in warning for warning in ranking.warnings)


def test_one_and_two_backward_passes_agree() -> None:
    model, x, labels = next(c for c in CASES if c.name == "max-pool").make()
    batch = Batch((x,), target=labels, samples=(0, 1))
    known = mean_estimates(model, batch, "cross-entropy", "gauss-newton", Hadamard(), 4)

    class Unfactored:
        name, needs_target = "unfactored", True

        def per_sample(self, output: Tensor, target: Tensor) -> Tensor:
            return F.cross_entropy(output, target, reduction="none")

        def factor(self, output: Tensor, target: Tensor, w: Any) -> None:
            return None

    with freeze(model):
        network = Network(model, batch)
        names = [layer.name for layer in network.layers]
        work = Work(network, Unfactored(), batch, Hadamard(), range(4), names, [], dict.fromkeys(names, SampleAxis()))
        found = torch.stack([one.layers for one in ESTIMATORS.resolve("gauss-newton")()(work)]).mean(0).numpy()
    np.testing.assert_allclose(found, np.array([known[name] for name in names]), rtol=1e-9)


def test_the_variance_of_rademacher_probes_is_the_textbook_one() -> None:
    """Var(vᵀHv) = 2(‖H‖² − Σ Hᵢᵢ²) for symmetric H; 4000 probes know a variance to about 5 %."""
    torch.manual_seed(0)
    matrix = torch.randn(12, 12, dtype=torch.float64)
    matrix = matrix + matrix.T
    probes = Rademacher(0)
    forms = [float(v @ matrix @ v) for v in (probes.draw(12, sample=0, probe=p).double() for p in range(4000))]
    expected = 2 * float(matrix.square().sum() - matrix.diagonal().square().sum())
    assert np.var(forms) == pytest.approx(expected, rel=0.1)
    assert np.mean(forms) == pytest.approx(float(matrix.trace()), abs=4 * (expected / 4000) ** 0.5)
