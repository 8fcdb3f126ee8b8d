"""hessrank, the per-layer loop, PyHessian made to do activations, and brute force: what needs no adapter's tricks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack

from torch import Tensor

import hessrank
from benchmarks.peers.adapter import Estimates, Sample, Tensors
from benchmarks.peers.cases import Case
from hessrank.analysis.estimators import ESTIMATORS, EstimatorChoice, Work, choose_estimators
from hessrank.analysis.estimators.curvature_propagation.pilot import PROBES, run_pilot
from hessrank.analysis.estimators.curvature_propagation.segments import PlannedSegment
from hessrank.analysis.estimators.probes import Rademacher
from hessrank.analysis.losses import make_loss
from hessrank.analysis.rounding.measured_increase import IncreaseMeter, QuantizedTensor
from hessrank.data.samples import as_samples
from hessrank.network.frozen_model import freeze
from hessrank.network.layer_facts import SampleAxis
from hessrank.network.layer_sizes import measure_sizes
from hessrank.network.network import Network
from hessrank.network.sample_batches import SampleBatches
from hessrank.network.weights import find_weights

CHUNK = 16  # probes that share a forward pass, as in hessrank.rank
COPIES = 8  # of a sample side by side in a batch, as in hessrank.rank, where the full Hessian is wanted
BITS = 8
_FROZEN = ExitStack()  # until the process ends: it is there for one measurement


def prepare_hessrank(case: Case, tensors: Tensors = "activations") -> Sample:
    """Plan as :func:`hessrank.rank` does; a probe is what ``auto`` takes where the loop takes one for each layer.

    Args:
        case: the network.
        tensors: whose values to give; the activations' are estimated along with the weights'.
    """
    work, outputs = work_of(case), case.model(case.x).numel()
    if tensors == "weights":
        work = dataclasses.replace(work, weights=find_weights(work.network, work.batch))
    facts = measure_sizes(work.network, work.batch)

    def pilot(layers: tuple[str, ...]) -> list[PlannedSegment]:
        return run_pilot(
            dataclasses.replace(work, layers=layers, weights=[], indices=range(PROBES), copies=PROBES),
            facts,
            outputs,
        )

    choices = choose_estimators("auto", work.network, work.loss, work.weights, outputs, pilot)
    copies = COPIES if case.full_hessian else 1
    done = 0

    def sample(count: int) -> Estimates:
        nonlocal done
        values: Estimates = {}
        for choice in choices:
            part = dataclasses.replace(work, layers=choice.layers, weights=choice.weights, copies=copies)
            names = [w.calls[0] for w in choice.weights] if tensors == "weights" else choice.layers
            found = _of_choice(part, choice, done, count, tensors)
            values.update(dict(zip(names, found, strict=True)))
        done += count
        return values

    return sample


def _of_choice(work: Work, choice: EstimatorChoice, first: int, count: int, tensors: Tensors) -> list[list[float]]:
    """Return the estimates of one part of the plan, tensor by tensor, while others take ``count`` probes."""
    estimator = ESTIMATORS.resolve(choice.estimator)(**choice.settings)
    begin = choice.probes(first)
    total = choice.probes(first + count) - begin  # none, where a start is dear and brought some to spare
    rows: list[Tensor] = []
    for start in range(begin, begin + total, CHUNK):
        indices = range(start, min(begin + total, start + CHUNK))
        found = estimator(dataclasses.replace(work, indices=indices))
        rows += [one.weights if tensors == "weights" else one.layers for one in found]
        if estimator.deterministic:
            rows *= total
            break
    wanted = work.weights if tensors == "weights" else work.layers
    return [[float(row[i]) for row in rows] for i in range(len(wanted))]


def prepare_loop(estimator: str) -> Callable[[Case], Sample]:
    """Return how one of hessrank's per-layer estimators is asked: ``hutchinson`` or ``pyhessian``."""

    def prepare(case: Case) -> Sample:
        work = work_of(case)
        done = 0

        def sample(count: int) -> Estimates:
            nonlocal done
            indices = range(done, done + count)
            found = list(ESTIMATORS.resolve(estimator)()(dataclasses.replace(work, indices=indices)))
            done += count
            return {name: [float(one.layers[i]) for one in found] for i, name in enumerate(work.layers)}

        return sample

    return prepare


def prepare_brute_force(case: Case) -> Sample:
    """Round one activation at a time to 8 bits and measure the loss, as ``hessrank verify`` does.

    What is compared is the trace that would explain the increase d: 2·d·n/‖e‖², e the rounding error.
    """
    data = (case.x, case.target) if case.full_hessian else case.x
    ranking = hessrank.rank(
        case.model, data, loss=case.loss, max_probes=2, increase_probes=0, bits=BITS, weights=False, tolerance=0.9
    )
    work = work_of(case)
    ranges = {name: tuple(ranking.info["graph"]["layers"][name]["range"]) for name in work.layers}
    per_damage = {  # ½·‖e‖²/n cancels the trace that the increase was predicted from
        name: ranking[name]["trace"] / ranking[name][f"act_increase_b{BITS}"]
        for name in work.layers
        if ranking[name][f"act_increase_b{BITS}"]
    }

    def sample(_: int) -> Estimates:
        batches = SampleBatches(as_samples(data, 1), case.model, 1, needs_target=case.full_hessian)
        meter = IncreaseMeter(work.network, batches, work.loss, ranges, {})
        return {
            name: [float(meter.increase(QuantizedTensor(name, BITS))[0]) * factor]
            for name, factor in per_damage.items()
        }

    return sample


def work_of(case: Case) -> Work:
    """Return the work for all layers of a case; its network stays frozen."""
    _FROZEN.enter_context(freeze(case.model))
    batch = case.batch
    network = Network(case.model, batch)
    names = [layer.name for layer in network.layers]
    axes = dict.fromkeys(names, SampleAxis())
    return Work(network, make_loss(case.loss), batch, Rademacher(0), range(1), names, [], axes)
