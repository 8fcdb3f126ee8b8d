"""The loss of one sample, and its curvature at the network's output.

Every loss gives ℓᵢ for each sample of a batch. Some also know a factor S of their Hessian B = S Sᵀ with
respect to the output z; then one backward pass of S w does for a probe w what otherwise takes two.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from hessrank.analysis.memory import is_out_of_memory
from hessrank.errors import HessrankError, LossError
from hessrank.plugins import Registry


class Loss(Protocol):
    """What an estimator needs of a loss. ``output`` is whatever the network returned, for a batch."""

    @property
    def name(self) -> str:
        """Return the name, as given on the command line."""
        ...

    @property
    def needs_target(self) -> bool:
        """Return whether the data must hold a target; if not, the target is the model's own output."""
        ...

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return ℓᵢ of each sample, shape (batch,), differentiable in ``output``."""
        ...

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor] | None:
        """Return S w, a tensor for each of :func:`output_tensors`, as ``w`` is; None where no S is known."""
        ...


def output_tensors(output: Any) -> list[Tensor]:
    """Return the floating-point tensors in what a network returned, in order; bare scalars have no samples."""
    leaves = tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim]


def detached(output: Any, *, requires_grad: bool = False) -> Any:
    """Return ``output`` cut off from the network's graph, each tensor a new leaf."""

    def cut(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.detach().requires_grad_(requires_grad and leaf.is_floating_point())

    return tree_map(cut, output)


def curvature_times(loss: Loss, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor]:
    """Return B w, B the Hessian of the batch's summed loss with respect to ``output``, by double backward.

    Args:
        loss: the loss.
        output: what the network returned; its graph is not touched.
        target: what the loss compares it with.
        w: a tensor for each of :func:`output_tensors`.
    """
    output = detached(output, requires_grad=True)
    z = output_tensors(output)
    with torch.enable_grad():
        total = loss.per_sample(output, target).sum()
        if not total.requires_grad:
            raise LossError(f"loss {loss.name!r} does not depend on the network's output")
        slopes = torch.autograd.grad(total, z, create_graph=True, allow_unused=True)
        pairs = [(g, v) for g, v in zip(slopes, w, strict=True) if g is not None and g.requires_grad]
        if not pairs:
            return [torch.zeros_like(v) for v in w]
        slope, weight = zip(*pairs, strict=True)
        products = torch.autograd.grad(slope, z, weight, allow_unused=True)
    return [torch.zeros_like(v) if p is None else p for p, v in zip(products, w, strict=True)]


LOSSES: Registry[Callable[[], Loss]] = Registry("loss")


def make_loss(loss: str | Loss | Callable[..., Tensor]) -> Loss:
    """Return the loss called ``loss``, or wrap a function ``fn(output, target)``.

    Args:
        loss: a registered name, ``pkg.module:fn``, ``file.py:fn``, a function, or a :class:`Loss`.

    Raises:
        LossError: it is L1, which has no second derivative.
        UnknownNameError: there is no loss of that name.
    """
    if isinstance(loss, str):
        if loss.lower() in ("l1", "mae", "l1loss", "l1-loss"):
            raise no_curvature(loss)
        found: Any = LOSSES.resolve(loss)
        return found() if loss in LOSSES else _wrapped(found, loss)
    return _wrapped(loss, getattr(loss, "__name__", type(loss).__name__))


def _wrapped(loss: Any, name: str) -> Loss:
    if isinstance(loss, type):
        loss = loss()
    if hasattr(loss, "per_sample") and hasattr(loss, "factor"):
        ready: Loss = loss
        return ready
    if not callable(loss):
        raise LossError(f"loss {name!r} is not callable: it should be a function of (output, target)")
    return CustomLoss(loss, name)


def no_curvature(name: str) -> LossError:
    """Build the error for a loss whose second derivative is zero."""
    return LossError(
        f"loss {name!r} has zero second derivative almost everywhere (as L1 has), so every trace would be zero: "
        "use --loss self (no labels needed), mse, or charbonnier, the smooth L1 of image restoration"
    )


@LOSSES.register("mse")
class SquaredError:
    """Mean over a sample's elements of (z − t)²; several output tensors add up. B = (2/m) I, m elements."""

    name = "mse"
    needs_target = True

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return Σ mean (z − t)² over the output tensors, shape (batch,)."""
        pairs = _paired(self.name, output, target)
        return torch.stack([(z - t).square().reshape(len(z), -1).mean(1) for z, t in pairs]).sum(0)

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor]:
        """Return √(2/m) w."""
        return [v * math.sqrt(2 / v[0].numel()) for v in w]


@LOSSES.register("charbonnier")
class Charbonnier:
    """Mean over a sample's elements of √((z − t)² + ε²), ε = 10⁻³: L1 made smooth (Charbonnier 1994)."""

    name = "charbonnier"
    needs_target = True
    epsilon = 1e-3

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return Σ mean √((z − t)² + ε²) over the output tensors, shape (batch,)."""
        pairs = _paired(self.name, output, target)
        return torch.stack([self._root(z, t).reshape(len(z), -1).mean(1) for z, t in pairs]).sum(0)

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor]:
        """Return √(ε²/((z − t)² + ε²)^(3/2)/m) w: B is diagonal."""
        pairs = _paired(self.name, output, target)
        scales = [self.epsilon * self._root(z, t).detach() ** -1.5 for z, t in pairs]
        return [v * s / math.sqrt(v[0].numel()) for v, s in zip(w, scales, strict=True)]

    def _root(self, z: Tensor, t: Tensor) -> Tensor:
        return torch.sqrt((z - t).square() + self.epsilon**2)


@LOSSES.register("cross-entropy")
class CrossEntropy:
    """Cross-entropy of logits B×C×… against class indices B×…, mean over a sample's positions, in nats.

    B = (diag p − p pᵀ)/positions at each position that is not ignored (index −100).
    """

    name = "cross-entropy"
    needs_target = True

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return the mean cross-entropy over each sample's positions, shape (batch,)."""
        logits = _logits(output)
        target = _labels(target, logits)
        counted = self._counted(logits, target)
        losses = F.cross_entropy(logits, target, reduction="none")
        return (losses * counted).flatten(1).sum(1) if losses.ndim > 1 else losses * counted

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor]:
        """Return S w = √p∘w − p⟨√p, w⟩ at each position, times √(1/positions)."""
        logits = _logits(output)
        scale = self._counted(logits, _labels(target, logits)).sqrt().unsqueeze(1)
        return [
            _softmax_factor(z, v) * scale if z is logits else torch.zeros_like(v)
            for z, v in zip(output_tensors(output), w, strict=True)
        ]

    def _counted(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return each position's weight in its sample's mean: 1/positions, or 0 where ignored."""
        if target.is_floating_point():
            return torch.full_like(logits[:, 0], 1 / max(1, logits[0, 0].numel()))
        _check_labels(target, logits)
        valid = (target != -100).to(logits.dtype)
        positions = valid.flatten(1).sum(1) if valid.ndim > 1 else valid
        return valid / positions.clamp(min=1).reshape(-1, *[1] * (valid.ndim - 1))


class Self:
    """How far the output moves from the model's own float output: no labels needed.

    KL divergence KL(p‖p′) in nats for tensors of logits B×C, else the mean over a sample's elements of the
    squared difference; several output tensors add up. At the model's own output the gradient is zero, so
    the Hessian with respect to any activation *is* the Gauss-Newton matrix.
    """

    needs_target = False

    def __init__(self, name: str, is_logits: Callable[[Tensor], bool]) -> None:
        """Take ``is_logits`` to decide for each output tensor whether it holds logits."""
        self.name = name
        self._is_logits = is_logits

    def logits_among(self, output: Any) -> list[str]:
        """Return the shapes of the output tensors that are taken for logits, as ``16×3``."""
        return [_shapes([z]) for z in output_tensors(output) if self._is_logits(z)]

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return the divergence of ``output`` from ``target``, the model's float output, shape (batch,)."""
        parts = [
            _divergence(z, t) if self._is_logits(z) else (z - t).square().reshape(len(z), -1).mean(1)
            for z, t in _paired(self.name, output, target)
        ]
        return torch.stack(parts).sum(0)

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor]:
        """Return S w: √p∘w − p⟨√p, w⟩ for logits, √(2/m) w otherwise."""
        return [
            _softmax_factor(z, v) / math.sqrt(_positions(z))
            if self._is_logits(z)
            else v * math.sqrt(2 / z[0].numel())
            for z, v in zip(output_tensors(output), w, strict=True)
        ]


LOSSES.register("self")(lambda: Self("self", lambda z: z.ndim == 2 and z.shape[1] > 1))
LOSSES.register("self-kl")(lambda: Self("self-kl", lambda z: z.ndim >= 2 and z.shape[_class_dim(z)] > 1))
LOSSES.register("self-mse")(lambda: Self("self-mse", lambda _: False))


class CustomLoss:
    """A user's ``fn(output, target)`` or ``fn(output)``, given one sample at a time: any mean is then per sample."""

    def __init__(self, function: Callable[..., Tensor], name: str) -> None:
        """Wrap ``function``, which is given batches of one."""
        self.name = name
        self.needs_target = _takes_target(function)
        self._function = function

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return the function's value on each sample, shape (batch,)."""
        count = output_tensors(output)[0].shape[0]
        return torch.stack([self._one(_slice(output, i), _slice(target, i)) for i in range(count)])

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> None:
        """Return None: nothing is known of its curvature."""
        return None

    def _one(self, output: Any, target: Any) -> Tensor:
        try:
            value = self._function(output, target) if self.needs_target else self._function(output)
        except HessrankError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise LossError(f"loss {self.name!r} raised {type(error).__name__}: {error}") from error
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise LossError(f"loss {self.name!r} returned {shape} for one sample: it should return one number")
        return value.reshape(())


def _takes_target(function: Callable[..., Tensor]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return True
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len([p for p in positional if p.default is p.empty]) > 1 or any(
        p.kind is p.VAR_POSITIONAL for p in parameters
    )


def _slice(nest: Any, index: int) -> Any:
    return tree_map(lambda leaf: leaf[index : index + 1] if isinstance(leaf, Tensor) and leaf.ndim else leaf, nest)


def _paired(name: str, output: Any, target: Any) -> list[tuple[Tensor, Tensor]]:
    z, t = output_tensors(output), [leaf for leaf in tree_leaves(target) if isinstance(leaf, Tensor)]
    t = [leaf for leaf in t if leaf.is_floating_point()] if len(t) > len(z) else t
    if [tuple(a.shape) for a in z] != [tuple(b.shape) for b in t]:
        raise LossError(
            f"loss {name!r}: the output is {_shapes(z)} and the target {_shapes(t)}; they should have equal shapes"
        )
    return list(zip(z, t, strict=True))


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ", ".join("×".join(map(str, t.shape)) or "a scalar" for t in tensors) or "nothing"


def _logits(output: Any) -> Tensor:
    if isinstance(output, Mapping) and "logits" in output:
        logits: Tensor = output["logits"]
        return logits
    tensors = output_tensors(output)
    if len(tensors) != 1 or tensors[0].ndim < 2:
        raise LossError(
            f"loss 'cross-entropy' takes one tensor of logits B×C×…; the network returns {_shapes(tensors)}: "
            "write a loss of your own, --loss file.py:fn"
        )
    return tensors[0]


def _labels(target: Any, logits: Tensor) -> Tensor:
    """Return class indices as torch wants them, int64, or class probabilities as they are."""
    if not isinstance(target, Tensor):
        raise LossError(f"loss 'cross-entropy': the target is a {type(target).__name__}, it should be labels")
    if target.is_floating_point() and target.shape != logits.shape:
        raise LossError(
            f"loss 'cross-entropy': the target is {_shapes([target])} of {str(target.dtype).removeprefix('torch.')}: "
            f"give integer labels, or probabilities of the logits' shape {_shapes([logits])}"
        )
    return target if target.is_floating_point() else target.long()


def _check_labels(target: Tensor, logits: Tensor) -> None:
    classes = logits.shape[1]
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(target.shape) != expected:
        raise LossError(
            f"loss 'cross-entropy': logits {_shapes([logits])} want labels {'×'.join(map(str, expected))}, "
            f"the target is {_shapes([target])}"
        )
    outside = target[(target != -100) & ((target < 0) | (target >= classes))]
    if outside.numel():
        raise LossError(
            f"label {int(outside.flatten()[0])} is out of range: there are {classes} classes, 0 to {classes - 1}"
        )


def _divergence(z: Tensor, t: Tensor) -> Tensor:
    """Return KL(softmax t ‖ softmax z) of each sample, mean over positions, shape (batch,)."""
    dim = _class_dim(z)
    log_p, log_q = F.log_softmax(t, dim), F.log_softmax(z, dim)
    return (log_p.exp() * (log_p - log_q)).flatten(1).sum(1) / _positions(z)


def _softmax_factor(z: Tensor, w: Tensor) -> Tensor:
    dim = _class_dim(z)
    p = F.softmax(z.detach(), dim)
    root = p.sqrt()
    return root * w - p * (root * w).sum(dim, keepdim=True)


def _class_dim(z: Tensor) -> int:
    """Classes lie along dimension 1, as torch's cross_entropy has it; in B×T×C of a language model, last."""
    return 2 if z.ndim == 3 else 1


def _positions(z: Tensor) -> int:
    return z[0].numel() // z.shape[_class_dim(z)]
