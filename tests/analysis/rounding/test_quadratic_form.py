"""½ eᵀHe of real rounding errors against torch.func's Hessian, on the table of small float64 networks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.small_networks import CASES, Case, TwoOutputs, allow_double_backward, module_calls
from torch import Tensor, nn

from hessrank.analysis.estimators import Work
from hessrank.analysis.estimators.probes import Hadamard, Probes, Rademacher, UnitVectors
from hessrank.analysis.losses import make_loss
from hessrank.analysis.rounding.quadratic_form import Grids, rounding_increase
from hessrank.analysis.rounding.quantize import quantize, quantize_weight
from hessrank.data.batch import Batch, single_samples
from hessrank.network.frozen_model import freeze
from hessrank.network.layer_facts import SampleAxis
from hessrank.network.layer_sizes import measure_sizes
from hessrank.network.layer_survey import find_ranges
from hessrank.network.network import Network
from hessrank.network.weights import channel_axis, find_weights

BITS = (2, 4, 7)
Found = dict[str, np.ndarray]
Ranges = dict[str, tuple[float, float]]
by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def self_kl(output: Tensor, target: Tensor) -> Tensor:
    return F.kl_div(output.log_softmax(1), target.log_softmax(1), reduction="batchmean", log_target=True)


def drawn(
    model: nn.Module,
    batch: Batch,
    loss: str,
    probes: Probes,
    count: int,
    *,
    one_by_one: bool = False,
    copies: int = 1,
) -> tuple[Found, Ranges]:
    """Return each draw by layer and weight (``weight of …``), shape (draws, bits, samples), and the ranges."""
    with freeze(model):
        network = Network(model, batch)
        names = [layer.name for layer in network.layers]
        facts = measure_sizes(network, batch)
        find_ranges(network, batch, facts)
        held = find_weights(network, batch)
        paths = {layer.name: str(layer.module) for layer in network.layers}
        axes = [channel_axis(model.get_submodule(paths[weight.calls[0]])) for weight in held]
        ranges = {name: (facts[name].low, facts[name].high) for name in names}
        where = dict.fromkeys(names, SampleAxis())
        grids, parts = Grids(BITS, ranges, axes), single_samples(batch) if one_by_one else [batch]
        made = make_loss(loss)
        works = [Work(network, made, b, probes, range(count), names, held, where, copies) for b in parts]
        found = torch.cat([torch.stack(list(rounding_increase(work, grids))) for work in works], dim=-1).numpy()
    rows = [*names, *(f"weight of {weight.calls[0]}" for weight in held)]
    return {name: found[:, row] for row, name in enumerate(rows)}, ranges


def half_second_derivative(value: Callable[[Tensor], Tensor]) -> float:
    """Return ½ d²/dt² at 0 of a function of a number: ½ eᵀHe along t e."""
    with allow_double_backward():
        zero = torch.zeros((), dtype=torch.float64)
        return 0.5 * float(torch.func.jacrev(torch.func.jacrev(value))(zero).detach())


def exact_of_layers(
    model: nn.Module, x: Tensor, loss: Callable[[Any, Any], Tensor], target: Any, ranges: Ranges
) -> Found:
    """Return ½ eᵀHe of every module call, bit-width and sample, by plain forward hooks of torch."""
    own = [_own(model, x[i : i + 1]) for i in range(len(x))]
    result = {}
    for name, path, repeat in module_calls(model, x[:1]):

        def one(bits: int, i: int, name: str = name, path: str = path, repeat: int = repeat) -> float:
            def value(t: Tensor) -> Tensor:
                seen = [0]

                def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
                    seen[0] += 1
                    if seen[0] - 1 != repeat:
                        return None
                    return output + t * (quantize(output.detach(), *ranges[name], bits) - output.detach())

                handle = model.get_submodule(path).register_forward_hook(hook)
                try:
                    return loss(model(x[i : i + 1]), own[i] if target is None else target[i : i + 1])
                finally:
                    handle.remove()

            return half_second_derivative(value)

        result[name] = np.array([[one(bits, i) for i in range(len(x))] for bits in BITS])
    return result


def exact_of_weights(model: nn.Module, x: Tensor, loss: Callable[[Any, Any], Tensor]) -> Found:
    """Return ½ eᵀHe of every weight, bit-width and sample for the divergence from the model's own output."""
    own = [_own(model, x[i : i + 1]) for i in range(len(x))]
    result = {}
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim < 2:
            continue

        def one(bits: int, i: int, path: str = path, module: nn.Module = module) -> float:
            weight = module.weight.detach()
            error = quantize_weight(weight, channel_axis(module), bits) - weight

            def value(t: Tensor) -> Tensor:
                changed = {f"{path}.weight": weight + t * error}
                return loss(torch.func.functional_call(model, changed, (x[i : i + 1],)), own[i])

            return half_second_derivative(value)

        result[f"weight of {path}"] = np.array([[one(bits, i) for i in range(len(x))] for bits in BITS])
    return result


def _own(model: nn.Module, x: Tensor) -> Any:
    with torch.no_grad():
        return model(x)


def assert_equal(found: Found, exact: Found, rtol: float = 1e-9) -> None:
    assert exact
    for name, values in exact.items():
        np.testing.assert_allclose(found[name], values, rtol=rtol, atol=1e-15, err_msg=name)


@by_name
@pytest.mark.parametrize("basis", ["hadamard", "unit vectors"])
def test_a_whole_basis_gives_the_exact_quadratic_form_of_the_self_loss(case: Case, basis: str) -> None:
    model, x, _ = case.make()
    batch = Batch((x,), samples=(0, 1))
    probes, count = (Hadamard(), 4) if basis == "hadamard" else (UnitVectors(), 3)
    draws, ranges = drawn(model, batch, "self", probes, count)
    found = {name: values.mean(0) if basis == "hadamard" else values.sum(0) for name, values in draws.items()}
    assert_equal(found, exact_of_layers(model, x, self_kl, None, ranges), case.rtol)
    assert_equal(found, exact_of_weights(model, x, self_kl), case.rtol)


@pytest.mark.parametrize("case", [c for c in CASES if c.flat], ids=lambda case: case.name)
def test_a_whole_basis_gives_the_exact_form_of_a_task_loss_where_all_is_piecewise_linear(case: Case) -> None:
    model, x, labels = case.make()
    draws, ranges = drawn(model, Batch((x,), target=labels, samples=(0, 1)), "cross-entropy", UnitVectors(), 3)
    exact = exact_of_layers(model, x, F.cross_entropy, labels, ranges)
    assert_equal({name: values.sum(0) for name, values in draws.items()}, exact)


def test_several_outputs_and_in_place_layers_are_right() -> None:
    torch.manual_seed(0)
    model, x = TwoOutputs().double(), torch.randn(2, 1, 4, 4, dtype=torch.float64)

    def loss(output: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
        return (output[0] - target[0]).square().mean() + self_kl(output[1], target[1])

    draws, ranges = drawn(model, Batch((x,), samples=(0, 1)), "self", Hadamard(), 64)
    found = {name: values.mean(0) for name, values in draws.items()}
    assert_equal(found, exact_of_layers(model, x, loss, None, ranges))
    assert_equal(found, exact_of_weights(model, x, loss))


@by_name
def test_random_draws_agree_within_four_standard_errors(case: Case) -> None:
    model, x, _ = case.make()
    batch = Batch((x,), samples=(0, 1))
    exact, _ = drawn(model, batch, "self", UnitVectors(), 3)
    found, _ = drawn(model, batch, "self", Rademacher(1), 400)
    for name, values in found.items():
        distance = np.abs(values.mean(0) - exact[name].sum(0))
        sem = values.std(0, ddof=1) / np.sqrt(len(values))
        assert (distance <= 4 * sem + 1e-9 * exact[name].sum(0)).all(), name


def test_a_draw_deviates_by_no_more_than_the_square_root_of_two() -> None:
    """The bound is for one sample: E[x⁴] of a sum x of random signs is at most 3 E[x²]²."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 40)).double(), torch.randn(1, 6).double()
    found, _ = drawn(model, Batch((x,)), "self-mse", Rademacher(0), 2000)
    for name, values in found.items():
        relative = values.std(0, ddof=1) / values.mean(0)
        assert (relative < 1.1 * np.sqrt(2)).all(), name


@by_name
def test_a_batch_of_two_gives_each_sample_what_it_has_alone(case: Case) -> None:
    model, x, _ = case.make()
    batch = Batch((x,), samples=(0, 1))
    together, _ = drawn(model, batch, "self", Rademacher(3), 2)
    alone, _ = drawn(model, batch, "self", Rademacher(3), 2, one_by_one=True)
    assert_equal(together, alone)


@by_name
def test_copies_of_the_samples_change_nothing(case: Case) -> None:
    model, x, _ = case.make()
    batch = Batch((x,), samples=(0, 1))
    alone, _ = drawn(model, batch, "self", Rademacher(3), 5)
    beside, _ = drawn(model, batch, "self", Rademacher(3), 5, copies=3)
    assert_equal(beside, alone)
