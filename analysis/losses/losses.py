"""The loss of one sample, and its curvature at the network's output.

Every loss gives ℓᵢ for each sample of a batch. Some also know a factor S of their Hessian B = S Sᵀ with
respect to the output z; then one backward pass of S w does for a probe w what otherwise takes two.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from hessrank.analysis.losses.cross_entropy import CrossEntropy
from hessrank.analysis.losses.position_weights import divergence, position_shares, shares, softmax_factor
from hessrank.errors import LossError, OptionError, unknown_name
from hessrank.network.outputs import class_dim, detach, may_be_logits, named_outputs, output_tensors
from hessrank.network.padding import Padded
from hessrank.plugins import Registry
from hessrank.text import first_line, shapes_text
from hessrank.user_code import explain_errors, user_code


class Loss(Protocol):
    """What an estimator needs of a loss. ``output`` is whatever the network returned, for a batch.

    A loss with an attribute ``leaves_out_padding`` that is true is given its target as :class:`Padded` where a batch
    has padding, and leaves that out; any other sees the whole output.
    """

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
        """Return S w, a tensor for each of the output's tensors, as ``w`` is; None where no S is known."""
        ...


def curvature_times(loss: Loss, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor]:
    """Return B w, B the Hessian of the batch's summed loss with respect to ``output``, by double backward.

    Args:
        loss: the loss.
        output: what the network returned; its graph is not touched.
        target: what the loss compares it with.
        w: a tensor for each of the output's tensors, :func:`hessrank.network.outputs.output_tensors`.
    """
    output = detach(output, requires_grad=True)
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
        try:
            products = torch.autograd.grad(slope, z, weight, allow_unused=True)
        except RuntimeError as error:
            if "not implemented" not in str(error) and "not differentiable" not in str(error):
                raise
            raise LossError(
                f"loss {loss.name!r} has no second derivative in torch ({first_line(error)}): "
                "use --loss self, or write it in other operations"
            ) from error
    return [torch.zeros_like(v) if p is None else p for p, v in zip(products, w, strict=True)]


LOSSES: Registry[Callable[..., Loss]] = Registry("loss")


def make_loss(loss: str | Loss | Callable[..., Tensor]) -> Loss:
    """Return the loss called ``loss``, or wrap a function ``fn(output, target)``.

    Args:
        loss: a registered name, maybe with options (``cross-entropy,ignore_index=255``), ``pkg.module:fn``,
            ``file.py:fn``, a function, or a :class:`Loss`.

    Raises:
        LossError: it is L1, which has no second derivative.
        UnknownNameError: there is no loss of that name, or it has no option of that name.
        OptionError: an option is no whole number.
    """
    if isinstance(loss, str):
        if loss.lower() in ("l1", "mae", "l1loss", "l1-loss"):
            raise no_curvature(loss)
        return _registered(loss) if is_registered(loss) else _wrapped(LOSSES.resolve_or_import(loss), loss)
    return _wrapped(loss, getattr(loss, "__name__", type(loss).__name__))


def is_registered(loss: str) -> bool:
    """Return whether ``loss`` is the name of a loss of ours, with or without options."""
    return loss.partition(",")[0] in LOSSES


def _registered(loss: str) -> Loss:
    """Make a loss of ours with its options, whole numbers all of them."""
    name, *pairs = loss.split(",")
    factory = LOSSES.resolve(name)
    known = inspect.signature(factory).parameters
    options = {}
    for pair in pairs:
        option, _, value = pair.partition("=")
        if option not in known:
            raise unknown_name(f"option of loss {name!r}", option, known)
        try:
            options[option] = int(value)
        except ValueError as error:
            raise OptionError(f"loss {loss!r}: write a whole number, as {name},{option}=255") from error
    return factory(**options)


def _wrapped(loss: Any, name: str) -> Loss:
    if isinstance(loss, type):
        with user_code(f"loss {name!r}: making it", LossError):
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
    leaves_out_padding = True

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return Σ mean (z − t)² over the output tensors, shape (batch,)."""
        pairs, real = _paired(self.name, output, target)
        return torch.stack([_total((z - t).square() * shares(z, real)) for z, t in pairs]).sum(0)

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor]:
        """Return √(2/m) w."""
        real = _apart(target)[1]
        return [v * (2 * shares(z, real)).sqrt() for z, v in zip(output_tensors(output), w, strict=True)]


@LOSSES.register("charbonnier")
class Charbonnier:
    """Mean over a sample's elements of √((z − t)² + ε²), ε = 10⁻³: L1 made smooth (Charbonnier 1994)."""

    name = "charbonnier"
    needs_target = True
    leaves_out_padding = True
    epsilon = 1e-3

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return Σ mean √((z − t)² + ε²) over the output tensors, shape (batch,)."""
        pairs, real = _paired(self.name, output, target)
        return torch.stack([_total(self._root(z, t) * shares(z, real)) for z, t in pairs]).sum(0)

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor]:
        """Return √(ε²/((z − t)² + ε²)^(3/2)/m) w: B is diagonal."""
        pairs, real = _paired(self.name, output, target)
        scales = [self.epsilon * self._root(z, t).detach() ** -1.5 * shares(z, real).sqrt() for z, t in pairs]
        return [v * s for v, s in zip(w, scales, strict=True)]

    def _root(self, z: Tensor, t: Tensor) -> Tensor:
        return torch.sqrt((z - t).square() + self.epsilon**2)


LOSSES.register("cross-entropy")(CrossEntropy)


class Self:
    """How far the output moves from the model's own float output: no labels needed.

    KL divergence KL(p‖p′) in nats for tensors of logits, else the mean over a sample's elements of the
    squared difference; several output tensors add up. At the model's own output the gradient is zero, so
    the Hessian with respect to any activation *is* the Gauss-Newton matrix.
    """

    needs_target = False
    leaves_out_padding = True

    def __init__(self, name: str, is_logits: Callable[[str, Tensor], bool]) -> None:
        """Take ``is_logits`` to decide for each output, by its name and shape, whether it holds logits."""
        self.name = name
        self._is_logits = is_logits

    def logits_among(self, output: Any) -> list[str]:
        """Return the shapes of the output tensors that are taken for logits, as ``16×3``."""
        return [shapes_text([z]) for name, z in named_outputs(output) if self._is_logits(name, z)]

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return the divergence of ``output`` from ``target``, the model's float output, shape (batch,)."""
        pairs, real = _paired(self.name, output, target)
        parts = [
            divergence(z, t, real) if self._is_logits(name, z) else _total((z - t).square() * shares(z, real))
            for (name, _), (z, t) in zip(named_outputs(output), pairs, strict=True)
        ]
        return torch.stack(parts).sum(0)

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor]:
        """Return S w: √p∘w − p⟨√p, w⟩ for logits, √(2/m) w otherwise."""
        real = _apart(target)[1]
        return [
            softmax_factor(z, v, position_shares(z, real))
            if self._is_logits(name, z)
            else v * (2 * shares(z, real)).sqrt()
            for (name, z), v in zip(named_outputs(output), w, strict=True)
        ]


LOSSES.register("self")(lambda: Self("self", may_be_logits))
LOSSES.register("self-kl")(lambda: Self("self-kl", lambda _, z: z.ndim >= 2 and z.shape[class_dim(z)] > 1))
LOSSES.register("self-mse")(lambda: Self("self-mse", lambda *_: False))


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
        with explain_errors(f"loss {self.name!r}"):
            value = self._function(output, target) if self.needs_target else self._function(output)
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


def _paired(name: str, output: Any, target: Any) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
    """Return output and target tensor by tensor, and which positions count, if not all do."""
    target, real = _apart(target)
    z, t = output_tensors(output), _target_tensors(target)
    t = [leaf for leaf in t if leaf.is_floating_point()] if len(t) > len(z) else t
    if [tuple(a.shape) for a in z] != [tuple(b.shape) for b in t]:
        raise LossError(
            f"loss {name!r}: the output is {shapes_text(z)} and the target {shapes_text(t)}; "
            "they should have equal shapes"
        )
    return list(zip(z, t, strict=True)), real


def _target_tensors(target: Any) -> list[Tensor]:
    if isinstance(target, Mapping):
        return output_tensors(target)
    return [leaf for leaf in tree_leaves(target) if isinstance(leaf, Tensor)]


def _apart(target: Any) -> tuple[Any, Tensor | None]:
    return (target.values, target.real) if isinstance(target, Padded) else (target, None)


def _total(elements: Tensor) -> Tensor:
    """Return the sum over each sample's elements, shape (batch,)."""
    return elements.reshape(len(elements), -1).sum(1)
