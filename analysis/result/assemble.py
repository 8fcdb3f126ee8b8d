"""Assembles the ranking's table, and the record of how it was made."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hessrank.analysis.options import Options
from hessrank.analysis.ranking_inputs import RankingInputs
from hessrank.analysis.result.ranking_record import SCHEMA_VERSION
from hessrank.analysis.result.ranking_table import COLUMNS
from hessrank.analysis.rounding.predicted_increase import Increases
from hessrank.analysis.sampling.rank_order import RankOrder
from hessrank.analysis.sampling.trace_samples import TraceSamples
from hessrank.analysis.statistics import rank_intervals, summarize
from hessrank.network.constants import Operands
from hessrank.network.layer_facts import LayerFacts
from hessrank.network.layer_names import Layer
from hessrank.network.network import Network
from hessrank.network.sample_batches import tensor_bytes
from hessrank.network.weights import Weight, without_trace


def assemble(
    inputs: RankingInputs, traces: TraceSamples, order: RankOrder, increases: Increases, by: str
) -> pd.DataFrame:
    """Return the ranking's table, most sensitive layer first.

    Args:
        inputs: what was ranked.
        traces: the traces.
        order: the order of the layers.
        increases: the predicted increases.
        by: the column to rank by.
    """
    found = summarize(traces.trace_replicates(), deterministic=traces.exact, of_samples=len(inputs.batches) > 1)
    low, high = rank_intervals(order.replicates)
    table = _make_layer_columns(inputs, traces)
    table |= {"trace": found.mean, "sem": found.sem, "ci_low": found.low, "ci_high": found.high}
    table |= {"rank_low": low, "rank_high": high, "converged": order.settled}
    table["mean_trace"] = found.mean / np.array(table["numel"])
    table |= _make_weight_columns(traces, increases)
    values, measured = increases.of_layers()
    table |= {f"act_increase_b{b}": column for b, column in zip(increases.bits, values.T, strict=True)}
    table["act_measured"] = [_join_widths(increases.bits, row) for row in measured]
    frame = pd.DataFrame(table)
    frame = frame.sort_values(by, ascending=False, kind="stable", ignore_index=True)
    frame["rank"] = np.arange(1, len(frame) + 1)
    # Blocks of draws leave out a last one that is not full: their mean may lie a place away from that of all draws.
    frame["rank_low"] = frame[["rank_low", "rank"]].min(axis=1)
    frame["rank_high"] = frame[["rank_high", "rank"]].max(axis=1)
    increase_columns = [f"{kind}_increase_b{b}" for kind in ("act", "weight") for b in increases.bits]
    return frame[[*COLUMNS, *increase_columns]]


def _make_layer_columns(inputs: RankingInputs, traces: TraceSamples) -> dict[str, Any]:
    layers = inputs.network.layers
    facts = [inputs.facts[layer.name] for layer in layers]
    table: dict[str, Any] = {
        "layer": [layer.name for layer in layers],
        "kind": [layer.kind for layer in layers],
        "execution_index": [layer.execution_index for layer in layers],
        "shape": [shape_span(fact.shapes) for fact in facts],
        "numel": _to_whole_numbers([fact.numel for fact in facts]),
        "macs": _to_whole_numbers([fact.macs for fact in facts]),
    }
    part_of = {name: part for part in traces.parts for name in part.choice.layers}
    parts = [part_of[layer.name] for layer in layers]
    table["estimator"] = [part.choice.estimator for part in parts]
    table["probed_at"] = [part.choice.probed_at or layer.name for part, layer in zip(parts, layers, strict=True)]
    table["num_probes"] = [int(part.layers.num_probes.max()) for part in parts]
    table["num_samples"] = len(inputs.batches)
    return table


def shape_span(shapes: Sequence[tuple[int, ...]]) -> str:
    """Return a shape as ``8x3x3``, or ``8x3-5`` where samples differ in a dimension.

    The numbers are then the smallest and the largest size.
    """
    seen = [shape for shape in shapes if shape]
    if len({len(shape) for shape in seen}) != 1:
        return "x".join(map(str, seen[0])) if seen else "1"
    spans = [(min(sizes), max(sizes)) for sizes in zip(*seen, strict=True)]
    return "x".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def _to_whole_numbers(means: Sequence[float]) -> list[float] | list[int]:
    """Return means over samples as whole numbers if all of them are."""
    return [int(mean) for mean in means] if all(mean == int(mean) for mean in means) else list(means)


def _make_weight_columns(traces: TraceSamples, increases: Increases) -> dict[str, Any]:
    """Return the weights' columns; a weight is in the row of its first call."""
    row = traces.rows
    names = ["weight_trace", "weight_sem", *(f"weight_increase_b{b}" for b in increases.bits)]
    columns: dict[str, Any] = {name: np.full(len(row), np.nan) for name in names}
    columns["weight_measured"] = [""] * len(row)
    for weight, (values, measured) in increases.of_weights().items():
        columns["weight_measured"][row[weight.calls[0]]] = _join_widths(increases.bits, measured)
        for b, value in zip(increases.bits, values, strict=True):
            columns[f"weight_increase_b{b}"][row[weight.calls[0]]] = value
    several = traces.num_samples > 1
    for part in traces.parts:
        found = summarize(part.weights.values(), deterministic=part.deterministic, of_samples=several)
        for i, weight in enumerate(part.choice.weights):
            place = row[weight.calls[0]]
            columns["weight_trace"][place], columns["weight_sem"][place] = found.mean[i], found.sem[i]
    return columns


def _join_widths(bits: Sequence[int], measured: NDArray[np.bool_]) -> str:
    """Return the bit-widths of measured increases as ``4 6``."""
    return " ".join(str(width) for width, is_measured in zip(bits, measured, strict=True) if is_measured)


def read_versions() -> dict[str, str]:
    """Return the versions of the packages that the numbers depend on."""
    return {
        "hessrank": version("hessrank"),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def describe_graph(network: Network, facts: Mapping[str, LayerFacts], weights: Sequence[Weight]) -> dict[str, Any]:
    """Return how the layers are connected, as a policy needs it.

    Args:
        network: the network that was ranked.
        facts: each layer's range over the data.
        weights: the weights that its calls multiply with.

    Returns:
        ``layers``: in the order of execution, each layer's ``inputs`` (names of layers), ``range`` (smallest and
        largest finite value, in units of the activation), ``inside`` where it lies within a module that torch.fx
        does not look into, ``masked``, up to where its values are masked scores, where it holds any, and what it
        reads beside layers (:meth:`~hessrank.network.constants.Operands.describe`); ``outputs``: the names of the
        layers that the network returns; ``opaque``: paths of the modules whose weights no layer is known to
        multiply with; ``stored``: bytes of all other tensors that layers read.
    """
    operands = Operands(network, facts, weights)

    def describe(layer: Layer) -> dict[str, Any]:
        low, high = facts[layer.name].low, facts[layer.name].high
        span = [low, high] if low <= high else [0.0, 0.0]  # an activation without elements has none
        described = {"inputs": list(network.inputs[layer.name]), "range": span}
        described |= operands.describe(layer) | ({"inside": True} if layer.name in network.inside else {})
        masked = facts[layer.name].axis.masked
        return described if masked is None else described | {"masked": masked}

    return {
        "layers": {layer.name: describe(layer) for layer in network.layers},
        "outputs": list(network.outputs),
        "opaque": without_trace(network, weights),
        "stored": operands.stored,
    }


def describe_run(
    inputs: RankingInputs,
    traces: TraceSamples,
    order: RankOrder,
    options: Options,
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return the record of how every number was made, without model and data.

    Args:
        inputs: what was ranked.
        traces: the traces.
        order: the order of the layers.
        options: what was asked for.
        notes: what a reader should know, a sentence each.
    """
    asked = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(options).items()}
    return {
        **inputs.describe_loss(),
        "schema_version": SCHEMA_VERSION,
        "layers": len(traces.layer_names),
        "loss": inputs.loss.name,
        "seed": options.seed,
        "options": asked,
        "model": {},
        "data": {},
        "estimators": [
            {
                "estimator": part.choice.estimator,
                "layers": len(part.choice.layers),
                "weights": len(part.choice.weights),
                "num_probes": int(part.layers.num_probes.max()),
                "probed_at": part.choice.probed_at or "each layer itself",
                "why": part.choice.why,
            }
            for part in traces.parts
        ],
        "order": {
            "stopped_by": order.stopped_by,
            "open_pairs": order.open_pairs,
            "of_pairs": max(0, len(order.settled) - 1),
        },
        "versions": read_versions(),
        "command": "",
        "warnings": list(notes),
    }


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Return a model's class, size and checksum of its weights."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(tensor_bytes(value))
    count = sum(p.numel() for p in model.parameters())
    return {"class": type(model).__qualname__, "parameters": count, "weights_sha256": digest.hexdigest()}
