"""What holds for every method."""

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hessrank.errors import HessrankError, ModelError, OptionError, UnknownNameError
from hessrank.quant.quantizers import QUANTIZERS, Quantizer, make_quantizer
from hessrank.quant.quantizers.grids import across
from hessrank.quant.scheme import WORDS, Scheme

CHANNELS = (4, 5)
METHODS = list(QUANTIZERS)
LEARNING = [method for method in METHODS if method not in ("fixed", "dorefa")]
SCHEMES = [Scheme.parse(f"{bits} {word}", Scheme(8)) for bits in (2, 3, 4, 8, 10, 16) for word in WORDS]

each_method = pytest.mark.parametrize("method", METHODS)
each_word = pytest.mark.parametrize("word", WORDS)
each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)


def make(method: str, scheme: Scheme, axis: int = 1, **options: Any) -> Quantizer:
    if scheme.per_channel:
        options |= {"axis": axis, "channels": CHANNELS[axis]}
    return make_quantizer(method, scheme, **options)


def values(dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*CHANNELS, 30, generator=generator) + torch.linspace(-1, 1, 5)[:, None]).to(dtype)


def ready(method: str, scheme: Scheme, axis: int = 1, **options: Any) -> Quantizer:
    """Return a quantizer calibrated on ``values()``, and enabled."""
    quantizer = make(method, scheme, axis, **options)
    quantizer.observing = True
    quantizer(values())
    quantizer.calibrated()
    quantizer.observing, quantizer.enabled = False, True
    return quantizer


def stirred(quantizer: Quantizer) -> Quantizer:
    """Move every parameter away from where calibration left it."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return quantizer


def assert_on_grid(quantizer: Quantizer, x: Tensor) -> None:
    """Compare with the formula of the interface, in float64 where every operation on the grid is exact."""
    grid = quantizer.grid()
    assert grid.scale.dtype == torch.float32
    assert grid.zero_point.dtype == torch.int32
    assert not grid.scale.requires_grad
    scale, zero_point = (across(part, grid.axis, x.dim()) for part in (grid.scale.double(), grid.zero_point))
    rounded = (quantizer.to_grid(x).detach() / scale).round() + zero_point
    expected = (rounded.clamp(grid.quant_min, grid.quant_max) - zero_point) * scale
    assert torch.equal(quantizer(x), expected)


@each_method
@each_scheme
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_values_lie_on_the_grid(method: str, scheme: Scheme, training: bool) -> None:
    quantizer = ready(method, scheme).train(training)
    x = 1.5 * values(torch.float64, seed=1)
    assert_on_grid(quantizer, x)
    assert_on_grid(stirred(quantizer), x)
    with torch.no_grad():
        assert_on_grid(quantizer, x)


@each_method
@each_word
@pytest.mark.parametrize("axis", [0, 1])
def test_powers_of_two_stay_so_while_they_are_learned(method: str, word: str, axis: int) -> None:
    scheme = Scheme(4, "channel" in word, "symmetric" in word, pot_scale=True)
    quantizer = stirred(ready(method, scheme, axis))
    mantissa, _ = quantizer.grid().scale.frexp()
    assert mantissa.eq(0.5).all()
    assert_on_grid(quantizer, values(torch.float64))
    x = values().requires_grad_()
    quantizer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in (x, *quantizer.parameters()))


@each_method
@each_word
def test_learned_grids_hold_zero_and_keep_their_integers(method: str, word: str) -> None:
    quantizer = stirred(ready(method, Scheme.parse(f"4 {word}", Scheme(4))))
    grid = quantizer.grid()
    assert (grid.quant_min <= grid.zero_point).all()
    assert (grid.zero_point <= grid.quant_max).all()
    assert quantizer(torch.zeros(CHANNELS)).eq(0).all()


@each_method
def test_calibration_covers_the_observed_range(method: str) -> None:
    quantizer = ready(method, Scheme(8))
    grid, x = quantizer.grid(), values()
    assert grid.scale.item() == pytest.approx((x.max() - x.min()).item() / 255, rel=1e-6)
    assert grid.zero_point.item() == round(-x.min().item() / grid.scale.item())
    assert quantizer.observer.seen == 0


@each_method
def test_switches_decide_what_forward_does(method: str) -> None:
    quantizer, x = make(method, Scheme(3)), values()
    assert quantizer(x) is x
    assert quantizer.observer.seen == 0
    quantizer.observing = True
    assert quantizer(x) is x
    assert quantizer.observer.seen == 1
    quantizer.calibrated()
    quantizer.observing, quantizer.enabled = False, True
    assert len(quantizer(x).unique()) <= 8
    assert quantizer.observer.seen == 0
    quantizer.enabled = False
    assert quantizer(x) is x


@each_method
def test_without_a_range_it_is_an_error_to_quantize(method: str) -> None:
    quantizer = make(method, Scheme(4))
    quantizer.enabled = True
    for call in (lambda: quantizer(values()), quantizer.grid):
        with pytest.raises(HessrankError, match=r"quantizer of 4 per_tensor_affine has no range: calibrate it"):
            call()
    with pytest.raises(ModelError, match="nothing was observed"):
        quantizer.calibrated()


@each_method
def test_only_methods_that_learn_have_parameters(method: str) -> None:
    parameters = list(make(method, Scheme(4)).parameters())
    assert bool(parameters) == (method in LEARNING)
    assert all(parameter.requires_grad for parameter in parameters)


@each_method
@each_word
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.half], ids=str)
def test_every_dtype_goes_forward_and_back(method: str, word: str, dtype: torch.dtype) -> None:
    quantizer = ready(method, Scheme.parse(f"10 {word}", Scheme(4)))
    x = values(dtype).requires_grad_()
    y = quantizer(x)
    assert y.dtype == dtype
    y.square().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert x.grad.isfinite().all()
    assert x.grad.any()
    assert (y - quantizer.to_grid(x)).abs().max() < 0.05
    for parameter in quantizer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@each_method
def test_scales_stay_in_float32_whatever_the_network_is_cast_to(method: str) -> None:
    quantizer = ready(method, Scheme(10))
    model = nn.Sequential(nn.Linear(3, 3), quantizer)
    expected = quantizer.grid().scale.clone()
    for cast in (model.half, model.bfloat16, model.double):
        cast()
        assert torch.equal(quantizer.grid().scale, expected)
        assert all(tensor.dtype == torch.float32 for tensor in quantizer.parameters())
    assert model[0].weight.dtype == torch.float64


@each_method
def test_the_device_of_its_tensors_can_change(method: str) -> None:
    quantizer = ready(method, Scheme(10)).to("meta")
    assert all(tensor.is_meta for tensor in quantizer.state_dict().values() if isinstance(tensor, Tensor))
    assert not quantizer.to_empty(device="cpu").scale.is_meta


@each_method
@each_word
def test_a_checkpoint_restores_an_uncalibrated_quantizer(method: str, word: str, tmp_path: Path) -> None:
    scheme = Scheme.parse(f"10 {word}", Scheme(4))
    quantizer = stirred(ready(method, scheme))
    torch.save(quantizer.state_dict(), tmp_path / "state.pt")
    other = make(method, scheme)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    other.enabled = True
    assert torch.equal(other(values()), quantizer(values()))
    assert str(other.grid()) == str(quantizer.grid())


@each_method
def test_a_checkpoint_of_an_uncalibrated_quantizer_leaves_it_so(method: str) -> None:
    quantizer = ready(method, Scheme(4))
    quantizer.load_state_dict(make(method, Scheme(4)).state_dict())
    with pytest.raises(ModelError, match="has no range"):
        quantizer(values())


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        (("fixed", Scheme(8)), r"8 per_tensor_affine \(fixed\)"),
        (("lsq", Scheme(4)), r"4 per_tensor_affine \(lsq\)"),
        (("fixed", Scheme(4, symmetric=True)), r"4 per_tensor_symmetric \(fixed\)"),
        (("fixed", Scheme(4, per_channel=True)), r"4 per_channel_affine \(fixed\)"),
        (("fixed", Scheme(4, pot_scale=True)), r"4 per_tensor_affine \(fixed, powers of two\)"),
    ],
    ids=["bits", "method", "symmetry", "per channel", "power of two"],
)
def test_a_checkpoint_of_another_scheme_or_method_is_refused(theirs: tuple[str, Scheme], told: str) -> None:
    model = nn.Sequential(ready("fixed", Scheme(4)))
    state = nn.Sequential(ready(*theirs)).state_dict()
    with pytest.raises(HessrankError, match=rf"holds a quantizer of {told}, .* one of 4 per_tensor_affine \(fixed\)"):
        model.load_state_dict(state, strict=theirs[0] == "fixed")


@each_method
@each_word
def test_copies_and_pickles_are_the_same_and_independent(method: str, word: str) -> None:
    quantizer = stirred(ready(method, Scheme.parse(f"4 {word}", Scheme(4)), observer="mse"))
    x, y = values(), quantizer(values())
    buffer = io.BytesIO()
    torch.save(quantizer, buffer)
    buffer.seek(0)
    copies = (
        copy.deepcopy(quantizer),
        pickle.loads(pickle.dumps(quantizer)),
        torch.load(buffer, weights_only=False),
    )
    ones = torch.ones(CHANNELS[1]) if quantizer.axis is not None else torch.tensor(1.0)
    quantizer.set_range(-7 * ones, 9 * ones)
    for other in copies:
        assert torch.equal(other(x), y)
        assert other.observer_name == "mse"
    assert not torch.equal(quantizer(x), y)


@pytest.mark.parametrize("method", LEARNING)
@each_word
@pytest.mark.parametrize("sign", [-1.0, 1.0], ids=["shrinking", "growing"])
def test_adam_never_drives_a_scale_negative(method: str, word: str, sign: float) -> None:
    """A loss whose gradient never turns; raw scales of 1e-4 would be negative after a step of 1e-3."""
    quantizer = make(method, Scheme.parse(f"8 {word}", Scheme(4)))
    x = 1e-3 * values()
    quantizer.observer.observe(x)
    quantizer.calibrated()
    quantizer.enabled = True
    start = quantizer.grid().scale
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=1e-3)
    for _ in range(1000):
        optimizer.zero_grad()
        (-sign * quantizer(3 * x) * x.sign()).sum().backward()
        optimizer.step()
    grid = quantizer.grid()
    assert grid.scale.isfinite().all()
    assert (grid.scale > 0).all()
    assert (sign * (grid.scale - start) > 0).all()
    assert quantizer(x).isfinite().all()


@pytest.mark.parametrize("method", LEARNING)
@each_word
def test_learning_a_scale_lessens_the_error(method: str, word: str) -> None:
    """Calibrated on a third of the range: a hundred steps of Adam bring the grid nearer to the values."""
    quantizer, x = make(method, Scheme.parse(f"3 {word}", Scheme(4))), values()
    quantizer.observer.observe(x / 3)
    quantizer.calibrated()
    quantizer.enabled = True
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=1e-2)
    errors = []
    for _ in range(100):
        optimizer.zero_grad()
        error = (quantizer(x) - x).square().mean()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert min(errors[-10:]) < 0.6 * errors[0]


@pytest.mark.parametrize("method", LEARNING)
def test_a_new_range_starts_learning_anew(method: str) -> None:
    quantizer = stirred(ready(method, Scheme(4)))
    quantizer.set_range(torch.tensor(-1.0), torch.tensor(2.0))
    assert quantizer.grid().scale.item() == pytest.approx(3 / 15)
    assert quantizer.grid().zero_point.item() == 5


@each_method
@each_word
def test_a_tensor_of_zeros_stays_so_and_breaks_no_gradient(method: str, word: str) -> None:
    quantizer = make(method, Scheme.parse(f"4 {word}", Scheme(4)))
    x = torch.zeros(CHANNELS, requires_grad=True)
    quantizer.observer.observe(x)
    quantizer.calibrated()
    quantizer.enabled = True
    y = quantizer(x)
    y.sum().backward()
    assert y.eq(0).all()
    assert quantizer.grid().scale.eq(1).all()
    assert quantizer.grid().zero_point.eq(0).all()
    for tensor in (x, *quantizer.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@each_method
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("symmetric", [False, True], ids=["affine", "symmetric"])
def test_each_channel_is_quantized_as_if_alone(method: str, axis: int, symmetric: bool) -> None:
    quantizer = ready(method, Scheme(4, per_channel=True, symmetric=symmetric), axis)
    x = values(torch.float64, seed=1).requires_grad_()
    y = quantizer(x)
    y.square().sum().backward()
    for channel in range(CHANNELS[axis]):
        alone = make_quantizer(method, Scheme(4, symmetric=symmetric), weight=True)
        part = values(torch.float64, seed=1).select(axis, channel).requires_grad_()
        alone.set_range(*values().select(axis, channel).aminmax())
        found = alone.fake_quantize(part)
        found.square().sum().backward()
        torch.testing.assert_close(y.select(axis, channel), found)
        assert x.grad is not None
        torch.testing.assert_close(x.grad.select(axis, channel), part.grad)
        for name, parameter in alone.named_parameters():
            whole = quantizer.get_parameter(name).grad
            assert whole is not None
            torch.testing.assert_close(whole[channel : channel + 1], parameter.grad, rtol=1e-4, atol=1e-5)


@each_method
def test_gradients_pass_through_torch_compile_unchanged(method: str) -> None:
    """Without a compiler: the graph alone, as ``torch.compile`` captures it."""
    quantizer = stirred(ready(method, Scheme(4)))
    x = values().requires_grad_()
    quantizer(x).square().sum().backward()
    expected = [x.grad, *(p.grad for p in quantizer.parameters())]
    x.grad = None
    quantizer.zero_grad()
    torch.compile(quantizer, backend="eager")(x).square().sum().backward()
    for found, value in zip([x.grad, *(p.grad for p in quantizer.parameters())], expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-4)


@each_method
@pytest.mark.parametrize("bad", [float("nan"), float("-inf")], ids=str)
def test_observing_what_no_grid_holds_is_an_error(method: str, bad: float) -> None:
    quantizer = make(method, Scheme(4))
    quantizer.observing = True
    with pytest.raises(ModelError, match="NaN or infinite"):
        quantizer(torch.tensor([1.0, bad]))


def test_axis_and_channels_go_with_the_scheme() -> None:
    per_channel = Scheme(8, per_channel=True)
    with pytest.raises(OptionError, match="quantizer of 8 per_channel_affine needs axis"):
        make_quantizer("fixed", per_channel, channels=3)
    with pytest.raises(OptionError, match="quantizer of 8 per_channel_affine needs channels"):
        make_quantizer("fixed", per_channel, axis=0)
    with pytest.raises(OptionError, match="axis=0: a quantizer of 8 per_tensor_affine has one scale"):
        make_quantizer("fixed", Scheme(8), axis=0)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (torch.zeros(3), torch.ones(3), r"a range of shape \(3,\) for a quantizer of shape \(\)"),
        (torch.tensor(1.0), torch.tensor(0.0), "from 1.0 to 0.0 is no range"),
        (torch.tensor(0.0), torch.tensor(float("nan")), "from 0.0 to nan is no range"),
    ],
    ids=["shape", "order", "NaN"],
)
def test_an_impossible_range_is_an_error(low: Tensor, high: Tensor, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make("fixed", Scheme(8)).set_range(low, high)


def test_a_wrong_name_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no quantization method named 'lsqq'; nearest is 'lsq'"):
        make_quantizer("lsqq", Scheme(8))
    with pytest.raises(UnknownNameError, match="no observer named 'min-max'; nearest is 'minmax'"):
        make_quantizer("lsq", Scheme(8), observer="min-max")


def test_printing_tells_scheme_and_scale() -> None:
    assert "8 per_tensor_affine, no range yet" in repr(make("lsq", Scheme(8)))
    quantizer = make("lsq", Scheme(8))
    quantizer.set_range(torch.tensor(0.0), torch.tensor(255.0))
    assert "8 per_tensor_affine, scale=1, enabled=False" in repr(quantizer)
