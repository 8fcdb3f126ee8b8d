"""Ranks the layers of a model on data: :func:`rank`.

Example:
    The loss (z − z₀)² has the Hessian 2 at the output z, 2·1·1ᵀ at the three inputs of the last layer, all weights
    being 1, and 2·3·3·1·1ᵀ at the two of the first:

    >>> import torch
    >>> import hessrank
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1, bias=False))
    >>> _ = [torch.nn.init.ones_(weight) for weight in network.parameters()]
    >>> ranking = hessrank.rank(network, torch.ones(4, 2))
    >>> {layer: round(ranking[layer]["trace"]) for layer in ranking}
    {'input_1': 36, '0': 6, '1': 2}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from torch import Tensor, nn

from hessrank.analysis.estimators import choose_estimators
from hessrank.analysis.losses import Loss, make_loss
from hessrank.analysis.options import DEFAULT_BITS, Options, Progress
from hessrank.analysis.pilot_pass import PilotPass
from hessrank.analysis.ranking_inputs import RankingInputs, check_loss
from hessrank.analysis.result.assemble import assemble, describe_graph, describe_model, describe_run
from hessrank.analysis.result.notes import (
    note_estimators,
    note_labels,
    note_masked_scores,
    note_network,
    note_order,
    note_resources,
)
from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.resume import check_same_ranking, ranking_key
from hessrank.analysis.rounding.error_pass import RoundingErrors, measure_rounding_errors
from hessrank.analysis.rounding.predicted_increase import predict_increases
from hessrank.analysis.sampling.checkpoint import Checkpoint
from hessrank.analysis.sampling.probe_runner import ProbeRunner
from hessrank.analysis.sampling.resumable_pass import Journal
from hessrank.analysis.sampling.sampler import sample_traces
from hessrank.analysis.statistics import Array
from hessrank.data import Data
from hessrank.data.samples import as_samples
from hessrank.distributed import Team
from hessrank.errors import ModelError
from hessrank.models.wrappers import copy_network, unwrap, wrappers_of
from hessrank.network.frozen_model import freeze
from hessrank.network.padding import leave_out_padding
from hessrank.network.precision import read_precision
from hessrank.network.sample_batches import SampleBatches
from hessrank.out_of_memory import explain_memory_errors
from hessrank.text import dtype_text

_COPIES = 8  # of a sample in one batch, at most
DEFAULT_SAMPLES = 32


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
    increase_probes: int = 256,
    precision: str = "32",
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    group: dist.ProcessGroup | None = None,
) -> Ranking:
    """Rank the layers of ``model`` by the trace of the loss Hessian.

    The Hessian is that with respect to a layer's activation.

    Args:
        model: any network; left exactly as it was, whatever happens. Half precision is computed in float32,
            on a copy.
        data: a tensor (N×…), a tuple or dict of tensors, a map-style dataset, a data loader or any iterable
            of batches. Fields are the arguments of ``forward``, by position or name; one more is the target.
        loss: ``self`` (how far the output moves; no target needed), ``self-kl``, ``self-mse``,
            ``cross-entropy`` (``cross-entropy,ignore_index=255`` leaves out another label than −100), ``mse``,
            ``charbonnier``, ``pkg.module:fn``, ``file.py:fn``, or a function of (output, target).
        estimator: ``auto``, ``gauss-newton``, ``exact``, ``curvature-propagation``, ``hutchinson`` or ``pyhessian``.
        by: the column to rank by: ``trace``, ``mean_trace`` or ``act_increase_b<bits>``.
        num_samples: how many samples to use, from the front; None takes at most 32.
        batch_size: samples run together. Changes speed and memory, not the result.
        max_probes: most probes a sample. Where `auto` estimates the full Hessian's traces, one of Hutchinson's may
            stand for up to four of curvature propagation, if these are cheaper.
        tolerance: relative difference of two traces that does not matter; sampling goes on until every two
            neighbors are in a certain order or certainly closer than this, or ``max_probes`` are spent.
        seed: all random numbers follow from it.
        bits: bit-widths, 2 to 16, to predict the increase for.
        weights: estimate the traces of the weights too, in the same backward passes.
        increase_probes: random probes in all, spread over the samples, for the increases, which are ½ eᵀHe of the
            rounding errors e themselves; their relative standard error is about √(2/increase_probes), the difference
            of the samples apart. Where rounding wipes most of a tensor out they are checked, and measured where they
            do not hold. 0 predicts from the traces, as where the Hessian takes more than a backward pass:
            ½ · trace/n · ‖e‖².
        precision: ``32``, or half precision, ``bf16`` or ``16`` (float16), for the passes of `gauss-newton` and
            `exact` where torch's autocast has it; sums are in float32. Less memory, and faster on hardware made for
            it; traces differ by a percent or so. The increases are not computed in it: half precision is as coarse
            as the 8 bits that they are about.
        progress: called as ``progress(stage, done, total)`` every now and then.
        checkpoint: keeps what is found while it works, and has what an interrupted ranking found to go on from, to
            the same bytes.
        group: processes of torch.distributed that all call this with the same arguments: each does some of the
            samples, and all return the ranking that one alone would return. Its backend must take tensors on the
            CPU (gloo).

    Returns:
        the ranking: traces in units of the loss per squared activation, with standard errors, 95 % intervals
        and rank intervals; predicted increases in units of the loss.

    Raises:
        HessrankError: the model, the data, the loss or an option does not work; one line says why.
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ModelError(f"a {type(model).__name__} cannot be ranked: give the torch.nn.Module that it was made from")
    widths = (bits,) if isinstance(bits, int) else tuple(sorted(set(bits)))
    options = Options(by, batch_size, max_probes, tolerance, seed, widths, weights, increase_probes, precision)
    made = make_loss(loss)
    samples, team = as_samples(data, DEFAULT_SAMPLES if num_samples is None else num_samples), Team(group)
    wrappers, (model, notes) = wrappers_of(model), _convert_to_float32(unwrap(model))
    notes += [f"took the network out of {name}" for name in wrappers]
    with freeze(model), explain_memory_errors():
        with team.raise_together():
            batches = SampleBatches(samples, model, batch_size, needs_target=made.needs_target, team=team)
            inputs, model_record = RankingInputs.of(model, batches, made), describe_model(model)
        notes += inputs.settle_batches()
        notes += leave_out_padding(inputs.network, batches, inputs.facts)
        check_same_ranking(inputs, ranking_key(inputs, model_record, options, estimator), checkpoint)
        journal = Journal(progress or (lambda *_: None), checkpoint)
        frame, record = _rank_layers(inputs, options, estimator, journal, notes)
    description = data.description if isinstance(data, Data) else {"kind": type(data).__name__}
    record["model"] = model_record
    record["data"] = {**description, "samples_used": len(batches), "sha256": inputs.contents.sha256}
    return Ranking(frame, record)


def _rank_layers(
    inputs: RankingInputs, options: Options, estimator: str, journal: Journal, notes: list[str]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rank the layers of ``inputs``.

    Returns:
        the ranking's table, and its record without what model and data were.
    """
    batches, loss = inputs.batches, inputs.loss
    errors = measure_rounding_errors(inputs, journal, options.bits)
    check_loss(inputs)

    pilot, weights = PilotPass(inputs, journal, options.seed), inputs.weights if options.weights else []
    choices = choose_estimators(estimator, inputs.network, loss, weights, inputs.outputs, pilot)

    copies = inputs.copies(batches.batch_size, _COPIES)
    runner = ProbeRunner(inputs, options.seed, copies, read_precision(options.precision))
    factors = _compute_factors(inputs, errors, options)
    traces, order = sample_traces(inputs, runner, journal, choices, factors, options)
    if not np.any(traces.trace_replicates()):
        raise ModelError("every trace is zero: no activation has an influence on the loss; is the output constant?")

    increases = predict_increases(inputs, runner, journal, traces, errors, options)
    if options.by_bits:
        order = increases.order(traces, options.by_bits, options.tolerance) or order

    notes = [*notes, *note_masked_scores(inputs), *pilot.notes, *note_network(inputs.network, inputs.weights)]
    notes += [*note_labels(loss, inputs.first_sample), *note_estimators(traces)]
    notes += [
        *note_resources(batches, traces, runner, copies),
        *note_order(traces, order, options),
        *increases.notes(),
    ]
    record = describe_run(inputs, traces, order, options, notes)
    record["increases"] = increases.record(traces.layer_names)
    record["graph"] = describe_graph(inputs.network, inputs.facts, inputs.weights)
    return assemble(inputs, traces, order, increases, options.by), record


def _compute_factors(inputs: RankingInputs, errors: RoundingErrors, options: Options) -> Array:
    """Return the factors from traces to what is ranked, shape (layers, samples)."""
    numel = np.array([inputs.facts[name].numel for name in inputs.layer_names], dtype=np.float64)
    if options.by == "trace":
        return np.ones((len(numel), len(inputs.batches)))
    if options.by == "mean_trace":
        return np.broadcast_to(1 / numel[:, None], (len(numel), len(inputs.batches)))
    return np.asarray(errors.errors[:, options.bits.index(options.by_bits)] / 2)


def _convert_to_float32(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """Return a float32 copy of a model in half precision, or the model itself."""
    if any(nn.parameter.is_lazy(p) for p in model.parameters()):
        raise ModelError("the model has lazy layers without weights yet: run it once on data before ranking it")
    half = {p.dtype for p in model.parameters() if p.dtype in (torch.float16, torch.bfloat16)}
    if not half:
        return model, []
    names = " and ".join(sorted(map(dtype_text, half)))
    return copy_network(model).float(), [f"weights in {names}: computed in float32, on a copy"]
