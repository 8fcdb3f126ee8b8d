"""One ranking on its way, stage by stage."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hessrank.analysis.estimators import plan
from hessrank.analysis.estimators.base import Work, check_curvature, target_of
from hessrank.analysis.estimators.curvature_propagation.pilot import PROBES, kept, restored, run_pilot
from hessrank.analysis.estimators.curvature_propagation.segments import Planned
from hessrank.analysis.estimators.probes import Rademacher
from hessrank.analysis.losses.losses import Loss, Self
from hessrank.analysis.options import Options
from hessrank.analysis.result.assemble import describe_model, versions
from hessrank.analysis.result.notes import about_labels, of_choices, of_machines, of_network, verdict
from hessrank.analysis.rounding.error_pass import RoundingErrors
from hessrank.analysis.rounding.predicted_increase import Increases, predict_increases
from hessrank.analysis.sampling.checkpoint import Checkpoint, Section, difference
from hessrank.analysis.sampling.resumable_pass import Stage
from hessrank.analysis.sampling.sampler import Part, Progress, Rounds
from hessrank.analysis.statistics import Array
from hessrank.data import Data
from hessrank.data.batch import Batch
from hessrank.errors import HessrankError, ModelError, OptionError
from hessrank.network.layer_facts import SampleAxis
from hessrank.network.layer_sizes import measure_all_sizes
from hessrank.network.layer_survey import check_weights, find_sample_axes
from hessrank.network.network import Network
from hessrank.network.outputs import output_tensors
from hessrank.network.padding import leave_out_padding
from hessrank.network.precision import read_precision
from hessrank.network.sample_batches import SampleBatches
from hessrank.network.weights import find_weights
from hessrank.out_of_memory import is_out_of_memory
from hessrank.text import listed

_COPIES = 8
_ELEMENTS = 2**23  # of activations, that a batch of copies may have


class Job:
    """One ranking on its way: what later steps need of earlier ones."""

    def __init__(
        self,
        model: nn.Module,
        batches: SampleBatches,
        loss: Loss,
        options: Options,
        tell: Progress,
        notes: list[str],
        checkpoint: Checkpoint | None,
    ) -> None:
        check_weights(model)
        self.batches, self.loss, self.options, self.tell, self.notes = batches, loss, options, tell, notes
        self.team, self.checkpoint = batches.team, checkpoint
        self.about_model = describe_model(model)
        contents = batches.read_all()
        self.fingerprint, self._several_sizes = contents.sha256, len(set(contents.shapes)) > 1
        self.one = batches.batch(0)
        self.network = Network(model, self.one)
        self.facts, self._outputs = measure_all_sizes(self.network, batches, contents.shapes)
        self.weights = find_weights(self.network, self.one)

    def run(self, estimator: str) -> tuple[Rounds, Increases]:
        """Survey, sample the traces, then the damage of rounding."""
        self._settle_batches()
        self.notes += leave_out_padding(self.network, self.batches, self.facts)
        self._begin(estimator)
        names = [layer.name for layer in self.network.layers]
        errors = self._survey()
        check_curvature(Work(self.network, self.loss, self.one, Rademacher(0), range(1), names, [], self._axes))
        wanted = self.weights if self.options.weights else []
        choices = plan(estimator, self.network, self.loss, wanted, self._outputs, self._pilot)
        parts = [Part.of(choice, len(self.batches)) for choice in choices]
        copies = self._started_with = self._copies(self.batches.batch_size, _COPIES)
        rounds = Rounds(
            self.network,
            self.loss,
            self.batches,
            self.facts,
            parts,
            self.options.seed,
            self._factors(errors.errors),
            copies,
            read_precision(self.options.precision),
            self.checkpoint,
        )
        rounds.run(self.options.tolerance, self.options.max_probes, self.tell)
        if not np.any(rounds.trace_replicates()):
            raise ModelError(
                "every trace is zero: no activation has an influence on the loss; is the output constant?"
            )
        increases = predict_increases(
            rounds, errors, self.options.bits, self.options.increase_probes, self._outputs, self.tell
        )
        if self.options.by_bits:
            increases.rank_by(rounds, self.options.by_bits, self.options.tolerance)
        self._note(rounds)
        self.notes += increases.notes()
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
        return {**told, "samples_used": len(self.batches), "sha256": self.fingerprint}

    def _begin(self, estimator: str) -> None:
        """See that all processes do the same ranking, and that the checkpoint is of this one."""
        self.output = self.network.run(self.one, lambda *_: None).output
        size = sum(float(torch.linalg.vector_norm(tensor)) for tensor in output_tensors(self.output))
        key = {
            "model weights": self.about_model["weights_sha256"],
            "data": self.fingerprint,
            "number of samples": len(self.batches),
            "loss": self.loss.name,
            "estimator": estimator,
            **asdict(self.options),
            "layers": " ".join(layer.name for layer in self.network.layers),
            "size of the first output": f"{size:.3g}",
            **versions(),
        }
        for place, others in enumerate(self.team.gather_values(key)):
            if others != key:
                raise OptionError(
                    f"process {place} does another ranking than process {self.team.place}: {difference(key, others)}"
                )
        if self.checkpoint is not None:
            self.checkpoint.open(key, self.team)

    def _settle_batches(self) -> None:
        """See whether samples stay apart inside a batch; if not, go one by one."""
        if self.batches.batch_size == 1 or len(self.batches) == 1:
            self.batches.batch_size = 1
        elif self._several_sizes:
            self.batches.batch_size = 1
            self.notes.append("the samples are of several sizes: they went one by one")
        elif self._mixed:
            self.batches.batch_size = 1
            self.notes.append(f"{self._mixed}: they went one by one")

    @cached_property
    def _mixed(self) -> str:
        """Why samples cannot share a batch; empty if they can."""
        try:
            other = self.batches.batch(0, 1) if len(self.batches) > 1 else self.one.map(_and_mirrored)
            pair = replace(other, samples=(0, min(1, len(self.batches) - 1)))
            name = find_sample_axes(self.network, self.one, pair, self.facts)
        except HessrankError as error:
            return f"two samples at once do not work ({error})"
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return "memory has no room for two samples at once"
        return name and f"layer {name!r} does not keep the samples of a batch apart"

    @property
    def _axes(self) -> dict[str, SampleAxis]:
        return {name: fact.axis for name, fact in self.facts.items()}

    def _copies(self, batch_size: int, most: int) -> int:
        """Return how often a sample may stand in one batch: by its size, so that every run decides the same."""
        elements = sum(self.facts[layer.name].numel for layer in self.network.layers) * batch_size
        return 1 if self._mixed else max(1, min(most, int(_ELEMENTS / max(1, elements))))

    def _pilot(self, layers: tuple[str, ...]) -> list[Planned]:
        """Find out how to estimate the full Hessian's traces of ``layers``, on the sample with the largest loss."""
        copies = self._copies(1, PROBES)
        if self._mixed or copies == 1:
            return []
        section = self.checkpoint.section("pilot") if self.checkpoint else None
        found = section.facts if section else self._piloted(layers, copies)
        if self.checkpoint:
            self.checkpoint.keep("pilot", Section(facts=found))
        if found["ran_out"]:
            self.notes.append(
                "memory ran out in the pilot: where something curved follows, hutchinson does all layers"
            )
        return restored(found["plan"], self.network, self.one)

    def _piloted(self, layers: tuple[str, ...], copies: int) -> dict[str, Any]:
        """Run the pilot in the first process: its plan is everybody's."""
        self.tell("pilot", 0, 1)
        hardest, found = self._hardest(), {"plan": [], "ran_out": False}
        with self.team.raise_together():
            if self.team.is_first:
                probes, batch = Rademacher(self.options.seed), self.batches.batch(hardest)
                work = Work(self.network, self.loss, batch, probes, range(PROBES), layers, [], self._axes, copies)
                try:
                    found["plan"] = kept(run_pilot(work, self.facts, self._outputs))
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    found["ran_out"] = True
        return self.team.broadcast(found)

    def _hardest(self) -> int:
        """Return the sample with the largest loss: it has the largest share in the traces."""
        losses = np.zeros(len(self.batches))

        def look(batch: Batch) -> None:
            output = self.network.run(batch, lambda *_: None).output
            losses[list(batch.samples)] = self.loss.per_sample(output, target_of(self.loss, batch, output)).cpu()

        with self.team.raise_together():
            self.batches.for_each(look)
        return int(self.team.gather(losses, 0).argmax())

    def _survey(self) -> RoundingErrors:
        """Return what the samples show of rounding each layer; learn the ranges on the way."""
        found, total = (
            RoundingErrors(self.network, self.facts, self.options.bits, len(self.batches)),
            2 * len(self.batches),
        )
        stage = Stage("ranges", self.batches, {"errors": found}, self.checkpoint)
        stage.run([found.look, found.measure], lambda share: self.tell("ranges", int(share * total), total))
        if found.masked:
            self.notes.append(
                f"masked scores in {listed(found.masked)}: no part of their ranges, and never quantized"
            )
        return found

    def _factors(self, errors: Array) -> Array:
        """Return what to multiply each layer's trace by to get the key that is ranked, by sample."""
        numel = np.array([self.facts[layer.name].numel for layer in self.network.layers], dtype=np.float64)
        by = self.options.by
        if by == "trace":
            return np.ones((len(numel), len(self.batches)))
        if by == "mean_trace":
            return np.broadcast_to(1 / numel[:, None], (len(numel), len(self.batches)))
        return np.asarray(errors[:, self.options.bits.index(self.options.by_bits)] / 2)

    def _note(self, rounds: Rounds) -> None:
        """Write down what a reader should know."""
        self.notes += of_network(self.network, self.weights)
        self.notes += about_labels(self.loss, self.one)
        self.notes += of_choices(rounds)
        self.notes += of_machines(rounds, self._started_with)
        self.notes += verdict(rounds, self.options.max_probes, self.options.increase_probes)


def _and_mirrored(tensor: Tensor) -> Tensor:
    """Return a batch of one and, as a second sample, the same backwards."""
    return torch.cat([tensor, tensor.flip(-1)]) if tensor.ndim > 1 else tensor.repeat(2)
