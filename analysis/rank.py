"""The main job: from a model and data to a :class:`Ranking`."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hessrank.analysis.batches import Batch, as_samples
from hessrank.analysis.damage import activation_errors
from hessrank.analysis.data import Data
from hessrank.analysis.estimators import plan
from hessrank.analysis.estimators.base import Work, check_curvature, target_of
from hessrank.analysis.estimators.pilot import PROBES, run_pilot
from hessrank.analysis.estimators.stretches import Planned
from hessrank.analysis.feed import Feed, content
from hessrank.analysis.increases import Increases, predict_increases
from hessrank.analysis.losses import Loss, Self, make_loss
from hessrank.analysis.memory import is_out_of_memory, memory_errors_explained
from hessrank.analysis.network import Network
from hessrank.analysis.notes import about_labels, verdict
from hessrank.analysis.outputs import output_tensors
from hessrank.analysis.padding import leave_out_padding
from hessrank.analysis.probes import Rademacher
from hessrank.analysis.ranking import Ranking
from hessrank.analysis.report import assemble, describe_graph, describe_run
from hessrank.analysis.rounds import Part, Progress, Rounds
from hessrank.analysis.statistics import Array
from hessrank.analysis.survey import (
    check_weights,
    find_ranges,
    find_sample_axes,
    first_look,
    never_run,
)
from hessrank.analysis.tables import listed
from hessrank.analysis.untouched import untouched
from hessrank.analysis.weights import find_weights, without_trace
from hessrank.errors import ModelError, OptionError, unknown_name

DEFAULT_SAMPLES = 32
_COPYING = ("curvature-propagation", "hutchinson")  # estimators that make use of copies of a sample in a batch
_COPIES = 8
_ELEMENTS = 2**23  # of activations, that a batch of copies may have
DEFAULT_BITS = tuple(range(4, 17))


@dataclass(frozen=True)
class Options:
    """What :func:`rank` was asked for, checked."""

    by: str
    batch_size: int
    max_probes: int
    tolerance: float
    seed: int
    bits: tuple[int, ...]
    weights: bool
    increase_probes: int

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_probes"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}: it should be 1 or more")
        if not 0 < self.tolerance < 1:
            raise OptionError(f"tolerance is {self.tolerance}: it should lie between 0 and 1, as 0.1")
        if self.increase_probes < 0:
            raise OptionError(f"increase_probes is {self.increase_probes}: it should be 0 (none) or more")
        if self.seed < 0:
            raise OptionError(f"seed is {self.seed}: it should not be negative")
        wrong = [b for b in self.bits if not 2 <= b <= 16]
        if wrong or not self.bits:
            raise OptionError(f"bits {wrong or 'are missing'}: bit-widths run from 2 to 16")
        known = ["trace", "mean_trace", *(f"act_increase_b{b}" for b in self.bits)]
        if self.by not in known:
            raise unknown_name("column to rank by", self.by, known)

    @property
    def by_bits(self) -> int:
        """The bit-width of the increase to rank by; 0 if it is a trace."""
        return int(self.by.removeprefix("act_increase_b")) if self.by.startswith("act_increase_b") else 0


def rank(
    model: nn.Module,
    data: Any,
    *,
    loss: str | Loss | Callable[..., Tensor] = "self",
    estimator: str = "auto",
    by: str = "trace",
    num_samples: int | None = None,
    batch_size: int = 1,
    max_probes: int = 64,
    tolerance: float = 0.1,
    seed: int = 0,
    bits: int | Iterable[int] = DEFAULT_BITS,
    weights: bool = True,
    increase_probes: int = 96,
    progress: Progress | None = None,
) -> Ranking:
    """Rank the layers of ``model`` by the trace of the loss Hessian with respect to their activations.

    Args:
        model: any network; left exactly as it was, whatever happens. Half precision is computed in float32,
            on a copy.
        data: a tensor (N×…), a tuple or dict of tensors, a map-style dataset, a data loader or any iterable
            of batches. Fields are the arguments of ``forward``, by position or name; one more is the target.
        loss: ``self`` (how far the output moves; no target needed), ``self-kl``, ``self-mse``,
            ``cross-entropy``, ``mse``, ``charbonnier``, ``pkg.module:fn``, ``file.py:fn``, or a function of
            (output, target).
        estimator: ``auto``, ``gauss-newton``, ``exact``, ``curvature-propagation``, ``hutchinson`` or ``pyhessian``.
        by: the column to rank by: ``trace``, ``mean_trace`` or ``act_increase_b<bits>``.
        num_samples: how many samples to use, from the front; None takes at most 32.
        batch_size: samples run together. Changes speed and memory, not the result.
        max_probes: most probes a sample. Where `auto` estimates the full Hessian's traces, one of Hutchinson's may
            stand for up to four of curvature propagation, if these are cheaper.
        tolerance: relative difference of two traces that does not matter; sampling goes on until every two
            neighbors are in a certain order or certainly closer than this, or ``max_probes`` are spent.
        seed: all random numbers follow from it.
        bits: bit-widths, 2 to 16, to predict the damage for.
        weights: estimate the traces of the weights too, in the same backward passes.
        increase_probes: random probes in all, spread over the samples, for the increases at up to 8 bits, which are
            ½ eᵀHe of the rounding errors e themselves; their relative standard error is √(2/increase_probes) at
            most, the difference of the samples apart. 0 predicts from the traces, as above 8 bits and where the
            Hessian takes more than a backward pass: ½ · trace/n · ‖e‖².
        progress: called as ``progress(stage, done, total)`` every now and then.

    Returns:
        the ranking: traces in units of the loss per squared activation, with standard errors, 95 % intervals
        and rank intervals; predicted increases in units of the loss.

    Raises:
        HessrankError: the model, the data, the loss or an option does not work; one line says why.
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ModelError(f"a {type(model).__name__} cannot be ranked: give the torch.nn.Module that it was made from")
    widths = (bits,) if isinstance(bits, int) else tuple(sorted(set(bits)))
    options = Options(by, batch_size, max_probes, tolerance, seed, widths, weights, increase_probes)
    made, tell = make_loss(loss), progress or (lambda *_: None)
    samples = as_samples(data, DEFAULT_SAMPLES if num_samples is None else num_samples)
    model, notes = _in_full_precision(model)
    with untouched(model), memory_errors_explained():
        job = _Job(
            model,
            Feed(samples, model, batch_size, needs_target=made.needs_target),
            made,
            options,
            tell,
            notes,
        )
        rounds, increases = job.run(estimator)
        frame = assemble(rounds, increases, options.by)
        info = job.describe_loss() | describe_run(
            rounds, asdict(options), _describe_model(model), job.describe_data(data), job.notes
        )
        info["increases"] = increases.record()
        info["graph"] = describe_graph(job.network, job.facts, job.weights)
    return Ranking(frame, info)


class _Job:
    """One ranking on its way: what later steps need of earlier ones."""

    def __init__(
        self, model: nn.Module, feed: Feed, loss: Loss, options: Options, tell: Progress, notes: list[str]
    ) -> None:
        check_weights(model)
        self.feed, self.loss, self.options, self.tell, self.notes = feed, loss, options, tell, notes
        self.fingerprint = feed.fingerprint()
        self.one = feed.batch(0)
        self.network = Network(model, self.one)
        self.facts = first_look(self.network, self.one)
        self.weights = find_weights(self.network, self.one)

    def run(self, estimator: str) -> tuple[Rounds, Increases]:
        """Survey, sample the traces, then the damage of rounding."""
        self._settle_batches()
        self.notes.extend(leave_out_padding(self.network, self.feed, self.facts))
        names = [layer.name for layer in self.network.layers]
        axes = {name: fact.axis for name, fact in self.facts.items()}
        errors = self._survey()
        check_curvature(Work(self.network, self.loss, self.one, Rademacher(0), range(1), names, [], axes))
        wanted = self.weights if self.options.weights else []
        self.output = self.network.run(self.one, lambda *_: None).output
        self._outputs = sum(t[0].numel() for t in output_tensors(self.output))
        choices = plan(estimator, self.network, self.loss, wanted, self._outputs, self._pilot)
        parts = [Part.of(choice, len(self.feed)) for choice in choices]
        copying = any(choice.estimator in _COPYING for choice in choices)
        copies = self._started_with = self._copies(self.feed.batch_size, _COPIES) if copying else 1
        rounds = Rounds(
            self.network, self.loss, self.feed, self.facts, parts, self.options.seed, self._factors(errors), copies
        )
        rounds.run(self.options.tolerance, self.options.max_probes, self.tell)
        if not np.any(rounds.trace_replicates()):
            raise ModelError(
                "every trace is zero: no activation has an influence on the loss; is the output constant?"
            )
        increases = predict_increases(rounds, errors, self.options.bits, self.options.increase_probes, self.tell)
        if self.options.by_bits:
            increases.rank_by(self.options.by_bits, self.options.tolerance)
        self._note_what_happened(rounds)
        return rounds, increases

    def describe_loss(self) -> dict[str, str]:
        """Return how the output was read, where the loss has a choice."""
        logits = self.loss.logits_among(self.output) if isinstance(self.loss, Self) else []
        if not logits:
            return {}
        return {
            "loss_detail": f"KL divergence, output {', '.join(logits)} taken for logits; regression: --loss self-mse"
        }

    def describe_data(self, data: Any) -> dict[str, Any]:
        """Return what the samples were, with a fingerprint of their content."""
        told = data.description if isinstance(data, Data) else {"kind": type(data).__name__}
        return {**told, "samples_used": len(self.feed), "sha256": self.fingerprint}

    def _settle_batches(self) -> None:
        """See whether samples stay apart inside a batch; if not, go one by one."""
        if self.feed.batch_size == 1 or len(self.feed) == 1:
            self.feed.batch_size = 1
        elif self._mixed:
            self.feed.batch_size = 1
            self.notes.append(
                f"layer {self._mixed!r} does not keep the samples of a batch apart: they went one by one"
            )

    @cached_property
    def _mixed(self) -> str:
        """The name of a layer that mixes the samples of a batch; empty if none does."""
        other = self.feed.batch(0, 1) if len(self.feed) > 1 else self.one.map(_and_mirrored)
        pair = replace(other, samples=(0, min(1, len(self.feed) - 1)))
        return find_sample_axes(self.network, self.one, pair, self.facts)

    def _copies(self, batch_size: int, most: int) -> int:
        """Return how often a sample may stand in one batch: by its size, so that every run decides the same."""
        elements = sum(self.facts[layer.name].numel for layer in self.network.layers) * batch_size
        return 1 if self._mixed else max(1, min(most, _ELEMENTS // max(1, elements)))

    def _pilot(self, layers: tuple[str, ...]) -> list[Planned]:
        """Find out how to estimate the full Hessian's traces of ``layers``, on the sample with the largest loss."""
        copies = self._copies(1, PROBES)
        if self._mixed or copies == 1:
            return []
        self.tell("pilot", 0, 1)
        axes = {name: fact.axis for name, fact in self.facts.items()}
        probes = Rademacher(self.options.seed)
        hardest = self.feed.batch(self._hardest())
        work = Work(self.network, self.loss, hardest, probes, range(PROBES), layers, [], axes, copies)
        try:
            return run_pilot(work, self.facts, self._outputs)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.notes.append(
                "memory ran out in the pilot: where something curved follows, hutchinson does all layers"
            )
            return []

    def _hardest(self) -> int:
        """Return the sample with the largest loss: it has the largest share in the traces."""
        losses = np.zeros(len(self.feed))

        def look(batch: Batch) -> None:
            output = self.network.run(batch, lambda *_: None).output
            losses[list(batch.samples)] = self.loss.per_sample(output, target_of(self.loss, batch, output)).cpu()

        self.feed.each(look)
        return int(losses.argmax())

    def _survey(self) -> Array:
        """Return the mean squared rounding error by layer, bit-width and sample; learn the ranges on the way."""
        masked: set[str] = set()
        bits, total = self.options.bits, 2 * len(self.feed)
        errors = np.zeros((len(self.network.layers), len(bits), len(self.feed)))

        def look(batch: Batch) -> None:
            masked.update(find_ranges(self.network, batch, self.facts))
            self.tell("ranges", batch.samples[-1] + 1, total)

        def measure(batch: Batch) -> None:
            errors[:, :, list(batch.samples)] = activation_errors(self.network, batch, self.facts, bits).numpy()
            self.tell("ranges", len(self.feed) + batch.samples[-1] + 1, total)

        self.feed.each(look)
        self.feed.each(measure)
        if masked:
            self.notes.append(f"-inf in {listed(sorted(masked))} (masked scores): left out of their ranges")
        return errors

    def _factors(self, errors: Array) -> Array:
        """Return what to multiply each layer's trace by to get the key that is ranked, by sample."""
        numel = np.array([self.facts[layer.name].numel for layer in self.network.layers], dtype=np.float64)
        by = self.options.by
        if by == "trace":
            return np.ones((len(numel), len(self.feed)))
        if by == "mean_trace":
            return np.broadcast_to(1 / numel[:, None], (len(numel), len(self.feed)))
        return np.asarray(errors[:, self.options.bits.index(self.options.by_bits)] / 2)

    def _note_what_happened(self, rounds: Rounds) -> None:
        notes, network = self.notes, self.network
        if network.why_hooks:
            notes.append(f"ranked module by module: {network.why_hooks}")
        notes.extend(about_labels(self.loss, self.one))
        if network.left_out:
            notes.append(f"{listed(network.left_out)} write into something else in place: not ranked")
        if idle := never_run(network):
            notes.append(f"{listed(idle)} never ran on this data: not ranked")
        for weight in self.weights:
            if len(weight.calls) > 1:
                notes.append(
                    f"{listed(weight.calls)} share one weight: its trace is that of all calls together, "
                    f"in the row of {weight.calls[0]}"
                )
        if uncounted := without_trace(network, self.weights):
            known = "only convolutions, linear layers and embeddings of the data"
            notes.append(f"no weight trace for {listed(uncounted)}: {known}")
        if zero := int((rounds.trace_replicates().mean(1) == 0).sum()):
            notes.append(
                f"{zero} traces are exactly 0: no influence on the output, or one too small for this precision"
            )
        for part in rounds.parts:
            if part.choice.estimator in _COPYING and part.choice.layers and len(rounds.parts) > 1:
                notes.append(f"{part.choice.estimator} for {len(part.choice.layers)} layers: {part.choice.why}")
        if rounds.copies < self._started_with:
            notes.append(f"memory ran out: went on with {rounds.copies} probes side by side")
        if self.feed.halved:
            notes.append(f"memory ran out: went on with batches of {self.feed.batch_size}")
        if len(self.feed) == 1:
            notes.append("one sample only: the error bars speak of this sample, not of others")
        notes.extend(verdict(rounds, self.options.max_probes, self.options.increase_probes))


def _and_mirrored(tensor: Tensor) -> Tensor:
    """Return a batch of one and, as a second sample, the same backwards."""
    return torch.cat([tensor, tensor.flip(-1)]) if tensor.ndim > 1 else tensor.repeat(2)


def _describe_model(model: nn.Module) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(content(value))
    count = sum(p.numel() for p in model.parameters())
    return {"class": type(model).__qualname__, "parameters": count, "weights_sha256": digest.hexdigest()}


def _in_full_precision(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """Return a float32 copy of a model in half precision, or the model itself."""
    if any(nn.parameter.is_lazy(p) for p in model.parameters()):
        raise ModelError("the model has lazy layers without weights yet: run it once on data before ranking it")
    half = {p.dtype for p in model.parameters() if p.dtype in (torch.float16, torch.bfloat16)}
    if not half:
        return model, []
    names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in half))
    return copy.deepcopy(model).float(), [f"weights in {names}: computed in float32, on a copy"]
