"""One fake-quantizer: an observer finds its range, a method rounds to its grid."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from hessrank.errors import ModelError, OptionError
from hessrank.quant.quantizers.grids import Grid, range_to_grid
from hessrank.quant.quantizers.observers import Observer
from hessrank.quant.quantizers.precision import KeepsPrecision
from hessrank.quant.registries import OBSERVERS, QUANTIZERS
from hessrank.quant.scheme import Scheme
from hessrank.user_code import explain_errors


class Quantizer(KeepsPrecision):
    """Base of all methods.

    Until it is calibrated and enabled it returns what it is given.

    Every learnable parameter is dimensionless and 0 after ``set_range``, where it means "as calibrated": an
    optimizer's step is then relative to the range, and weight decay pulls towards calibration.

    Attributes:
        method: name of the method.
        fills_grid: whether it stretches values to fill the grid, so that a coarser grid would change them.
        scheme: bits and grid.
        axis: which axis counts the channels; None for one scale.
        observer: finds the range.
        observer_name: by which it was asked for.
        observing: whether ``forward`` shows its input to the observer.
        enabled: whether ``forward`` rounds.
        weight: whether it quantizes a weight (``dorefa`` transforms weights, and only those).
        has_range: whether it was given a range, by calibration or a checkpoint.
        scale: as calibrated; float32, shape (1,) or (channels,).
        zero_point: as calibrated; int32, of the same shape.
    """

    method: ClassVar[str]
    fills_grid: ClassVar[bool] = False
    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        scheme: Scheme,
        *,
        observer: str = "minmax",
        axis: int | None = None,
        channels: int | None = None,
        weight: bool | None = None,
    ) -> None:
        """Make a quantizer that has no range yet.

        Args:
            scheme: bits and grid.
            observer: name of an observer.
            axis: which axis counts the channels; given if, and only if, the scheme is per channel.
            channels: how many there are; likewise.
            weight: whether the tensor is a weight; if not said, what is quantized per channel is.

        Raises:
            OptionError: axis or channels do not go with the scheme.
            UnknownNameError: there is no such observer.
        """
        super().__init__()
        for name, value in (("axis", axis), ("channels", channels)):
            if scheme.per_channel and value is None:
                raise OptionError(f"a quantizer of {scheme} needs {name}")
            if not scheme.per_channel and value is not None:
                raise OptionError(f"{name}={value}: a quantizer of {scheme} has one scale and takes no {name}")
        self.scheme, self.axis, self.observer_name = scheme, axis, observer
        watch = OBSERVERS.resolve_or_import(observer)
        with explain_errors(f"making the observer {observer!r}", OptionError):
            self.observer: Observer = watch(scheme, axis, channels)
        self.observing = self.enabled = False
        self.weight = scheme.per_channel if weight is None else weight
        self.has_range = False
        self.register_buffer("scale", torch.ones(channels or 1))
        self.register_buffer("zero_point", torch.zeros(channels or 1, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Observe ``x`` if observing; return it, fake-quantized if enabled.

        Raises:
            ModelError: it is enabled but has no range, or observes what no grid holds.
        """
        if self.observing:
            self.observer.observe(x)
        if not self.enabled:
            return x
        self._check_range()
        return self.fake_quantize(x)

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return ``x`` on the grid, with the method's gradient.

        Of the same shape and dtype.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it rounds")

    def to_grid(self, x: Tensor) -> Tensor:
        """Return what is rounded: ``x``, or the method's transform of it."""
        return x

    def current(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point as the parameters have them now.

        The scale may carry a gradient.
        """
        return self.scale, self.zero_point

    def grid(self) -> Grid:
        """Return the grid that values lie on now, detached.

        Raises:
            ModelError: there is no range yet.
        """
        self._check_range()
        with torch.no_grad():
            scale, zero_point = self.current()
        integers = zero_point.to(torch.int32).clone()
        return Grid(scale.detach().clone(), integers, self.scheme.quant_min, self.scheme.quant_max, self.axis)

    @torch.no_grad()
    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Cover the range [low, high], widened to hold 0.

        Learnable parameters start anew from there.

        Args:
            low: smallest value, in units of the tensor; shape () or (channels,).
            high: largest value, of the same shape.

        Raises:
            OptionError: the ends are not finite, the wrong way round, or of another shape.
        """
        low, high = (torch.as_tensor(end, dtype=torch.float32, device=self.scale.device) for end in (low, high))
        shape = () if self.axis is None else tuple(self.scale.shape)
        for end in (low, high):
            if tuple(end.shape) not in {shape, tuple(self.scale.shape)}:
                raise OptionError(f"a range of shape {tuple(end.shape)} for a quantizer of shape {shape}")
        if not bool((low.isfinite() & high.isfinite() & (low <= high)).all()):
            raise OptionError(f"from {low.tolist()} to {high.tolist()} is no range: its ends are finite and in order")
        scale, zero_point = range_to_grid(*self.covered(low.reshape(-1), high.reshape(-1)), self.scheme)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)
        for parameter in self.parameters(recurse=False):
            parameter.zero_()
        self.has_range = True

    def covered(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the grid should cover so that [low, high] can be quantized.

        Shapes (1,) or (channels,).
        """
        return low, high

    def calibrated(self) -> None:
        """Take the range from the observer, and drop the observer's state.

        Raises:
            ModelError: the observer saw nothing.
        """
        self.set_range(*self.observer.range())
        self.observer.reset()

    def _check_range(self) -> None:
        if not self.has_range:
            raise ModelError(
                f"the {self.method} quantizer of {self.scheme} has no range: calibrate it (observing, then "
                "calibrated()), set_range, or load a checkpoint"
            )

    def _identity(self) -> dict[str, Any]:
        scheme = self.scheme
        return {"method": self.method, "bits": scheme.bits, "word": scheme.word, "pot_scale": scheme.pot_scale}

    def get_extra_state(self) -> dict[str, Any]:
        """Return what a checkpoint says of this quantizer beside its tensors.

        Method, scheme, calibrated or not.
        """
        return {**self._identity(), "has_range": self.has_range}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Check that a checkpoint's quantizer is of this method and scheme.

        Raises:
            ModelError: it is not; both are named.
        """
        theirs = {key: state.get(key) for key in self._identity()}
        if theirs != self._identity():
            raise ModelError(
                f"the checkpoint holds a quantizer of {_told(theirs)}, the model has one of "
                f"{_told(self._identity())}: apply the policy that the checkpoint was made with before loading it"
            )
        self.has_range = bool(state["has_range"])

    def extra_repr(self) -> str:
        """Say scheme, range and switches."""
        if not self.has_range:
            return f"{self.scheme}, no range yet"
        scale = self.grid().scale
        told = f"{scale.item():.4g}" if scale.numel() == 1 else f"{scale.min():.4g}…{scale.max():.4g}"
        return f"{self.scheme}, scale={told}, enabled={self.enabled}"


def _told(identity: dict[str, Any]) -> str:
    scales = ", powers of two" if identity["pot_scale"] else ""
    return f"{identity['bits']} {identity['word']} ({identity['method']}{scales})"


def make_quantizer(
    method: str,
    scheme: Scheme,
    *,
    observer: str = "minmax",
    axis: int | None = None,
    channels: int | None = None,
    weight: bool | None = None,
) -> Quantizer:
    """Make a quantizer by the name of its method; arguments as ``Quantizer`` has them.

    Raises:
        UnknownNameError: no such method or observer; the nearest names are listed.
        OptionError: axis or channels do not go with the scheme.
    """
    kind: type[Quantizer] = QUANTIZERS.resolve_or_import(method)
    with explain_errors(f"making the quantizer {method!r}", OptionError):
        return kind(scheme, observer=observer, axis=axis, channels=channels, weight=weight)
