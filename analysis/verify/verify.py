"""Quantizes one tensor at a time and compares with a ranking's predictions.

Example:
    The input's 0.5 lies between two of its 16 levels and gets 1/30 off, the output of all its weights of 1 then 3/30;
    and the other sample nothing, so that the loss rises by 0.1²/2:

    >>> import torch
    >>> import hessrank
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1, bias=False))
    >>> _ = [torch.nn.init.ones_(weight) for weight in network.parameters()]
    >>> data = torch.tensor([[0.0, 0.0], [0.5, 1.0]])
    >>> verification = hessrank.verify(network, data, hessrank.rank(network, data), bits=4)
    >>> verification.to_frame()[["predicted", "measured"]].round(4).to_numpy().tolist()[0]
    [0.005, 0.005]
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from hessrank.analysis.losses import Loss, is_registered, make_loss
from hessrank.analysis.options import Progress
from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.rounding.measured_increase import IncreaseMeter, QuantizedTensor, agree
from hessrank.analysis.verify.explain import FACTOR, Prediction, find_reason, separate_orders
from hessrank.analysis.verify.verification import COLUMNS, Verification
from hessrank.data.samples import as_samples
from hessrank.errors import ModelError, OptionError, unknown_name
from hessrank.models.wrappers import unwrap
from hessrank.network.frozen_model import freeze
from hessrank.network.layer_sizes import measure_sizes
from hessrank.network.layer_survey import check_weights, find_sample_axes
from hessrank.network.network import Network
from hessrank.network.sample_batches import SampleBatches
from hessrank.network.weights import Weight, find_weights
from hessrank.out_of_memory import explain_memory_errors
from hessrank.plugins import from_here
from hessrank.text import printable

_ROUNDING = 10  # times the precision of a loss: differences below are nothing but rounding


def verify(
    model: nn.Module,
    data: Any,
    ranking: Ranking,
    *,
    loss: str | Loss | Callable[..., Tensor] | None = None,
    bits: int | Iterable[int] | None = None,
    layers: Sequence[str] | None = None,
    weights: bool = True,
    num_samples: int | None = None,
    batch_size: int = 1,
    progress: Progress | None = None,
) -> Verification:
    """Quantize one tensor at a time, and compare the increase with the prediction.

    Args:
        model: the network that was ranked; left as it was.
        data: as for :func:`hessrank.rank`.
        ranking: the ranking; its record holds the ranges and the loss.
        loss: what the increase is measured by; None takes the ranking's, if it is hessrank's.
        bits: bit-widths, all among those that the ranking predicts for; None takes 4 and 8, or else all.
        layers: names of the layers; None takes all.
        weights: measure weights too.
        num_samples: how many samples, from the front; None takes as many as the ranking did.
        batch_size: samples run together.
        progress: called as ``progress("verify", done, total)``.

    Returns:
        predicted and measured increases, in units of the loss; where they are more than a factor of 1.5 apart, why.

    Raises:
        HessrankError: the ranking is of another network, has no record, or does not predict for these bits; or model,
            data or loss do not work.
    """
    model, widths = unwrap(model), _choose_widths(ranking, bits)
    made = make_loss(recorded_loss(ranking) if loss is None else loss)
    count = int(ranking.to_frame()["num_samples"].max()) if num_samples is None else num_samples
    with freeze(model), explain_memory_errors():
        check_weights(model)
        batches = SampleBatches(as_samples(data, count), model, batch_size, needs_target=made.needs_target)
        contents = batches.read_all()
        same_data = contents.sha256 == ranking.info.get("data", {}).get("sha256")
        one = batches.batch(0)
        network = Network(model, one)
        names = _choose_layers(network, ranking, layers)
        if len(set(contents.shapes)) > 1 or len(batches) == 1:
            batches.batch_size = 1
        if batches.batch_size > 1 and find_sample_axes(
            network, one, batches.batch(0, 1), measure_sizes(network, one)
        ):
            batches.batch_size = 1
        graph = ranking.info["graph"]["layers"]
        ranges = {name: tuple(graph[name]["range"]) for name in names}
        masked = {name: graph[name]["masked"] for name in names if "masked" in graph[name]}
        meter = IncreaseMeter(network, batches, made, ranges, masked)
        held = {w.calls[0]: w for w in find_weights(network, one)} if weights else {}
        tensors = _list_tensors(ranking, names, held, widths)
        rows = []
        for done, what in enumerate(tensors):
            rows.append(_measure_row(meter, what, _read_prediction(ranking, what, same_data=same_data), ranking))
            (progress or (lambda *_: None))("verify", done + 1, len(tensors))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return Verification(frame, _write_notes(ranking, made, same_data=same_data))


def _measure_row(
    meter: IncreaseMeter, what: QuantizedTensor, prediction: Prediction, ranking: Ranking
) -> dict[str, Any]:
    increase = meter.increase(what)
    measured = float(increase.mean())
    sem = float(increase.std(ddof=1) / math.sqrt(len(increase))) if len(increase) > 1 else math.nan
    row: dict[str, Any] = {
        "layer": what.layer,
        "kind": ranking[what.layer]["kind"],
        "tensor": what.tensor,
        "bits": what.bits,
        "predicted": prediction.value,
        "measured": measured,
        "measured_sem": sem,
        "ratio": prediction.value / measured if measured else math.nan,
        "reason": "",
    }
    rounding = _ROUNDING * torch.finfo(torch.float32).eps * float(np.abs(meter.losses).mean())
    if agree(prediction.value, measured, FACTOR):
        return row
    if max(abs(measured), abs(prediction.value)) <= rounding:
        return {**row, "reason": "below rounding"}
    parts = separate_orders(meter, what)
    return {**row, **vars(parts), "reason": find_reason(prediction, parts)}


def _read_prediction(ranking: Ranking, what: QuantizedTensor, *, same_data: bool) -> Prediction:
    kind = "act" if what.weight is None else "weight"
    row, record = ranking[what.layer], ranking.info.get("increases", {})
    listed = record.get("from_trace", {}).get("layers" if what.weight is None else "weights", [])
    from_trace = what.bits not in record.get("bits", []) or what.layer in listed
    trace, sem = (row["trace"], row["sem"]) if what.weight is None else (row["weight_trace"], row["weight_sem"])
    if from_trace:
        noise = abs(sem / trace) if trace and not math.isnan(sem) else 0.0
    else:
        noise = 0.0 if record.get("exact") else math.sqrt(2 / max(1, record.get("draws", 1)))
    return Prediction(float(row[f"{kind}_increase_b{what.bits}"]), noise, from_trace, same_data)


def _list_tensors(
    ranking: Ranking, names: Sequence[str], weights: dict[str, Weight], bits: Sequence[int]
) -> list[QuantizedTensor]:
    """Return the tensors to measure: activations, then weights with a prediction."""
    predicted = {b: dict(zip(ranking, ranking.to_frame()[f"weight_increase_b{b}"], strict=True)) for b in bits}
    activations = [QuantizedTensor(name, b) for b in bits for name in names]
    with_weight = [
        QuantizedTensor(name, b, weights[name])
        for b in bits
        for name in names
        if name in weights and not math.isnan(predicted[b][name])
    ]
    return activations + with_weight


def _choose_layers(network: Network, ranking: Ranking, wanted: Sequence[str] | None) -> list[str]:
    """Return the layers to measure, in the ranking's order.

    They must be in the network and in the ranking.
    """
    known = {layer.name for layer in network.layers}
    missing = [name for name in ranking if name not in known]
    if missing:
        raise ModelError(
            f"the ranking's layer {missing[0]!r} is not in the network ({len(missing)} of {len(ranking)} are not): "
            "was it made of another one?"
        )
    for name in wanted or ():
        if name not in set(ranking):
            raise unknown_name("layer", name, ranking)
    return [name for name in ranking if wanted is None or name in set(wanted)]


def _choose_widths(ranking: Ranking, bits: int | Iterable[int] | None) -> tuple[int, ...]:
    """Return the bit-widths to measure at, all of which the ranking predicts for."""
    if "graph" not in ranking.info:
        raise OptionError(
            "the ranking has no record of the ranges (the .json beside the .csv): write it again with rank"
        )
    columns = ranking.to_frame().columns
    known = [int(c.removeprefix("act_increase_b")) for c in columns if c.startswith("act_increase_b")]
    if bits is None:
        return tuple(b for b in (4, 8) if b in known) or tuple(known)
    widths = (bits,) if isinstance(bits, int) else tuple(sorted(set(bits)))
    unknown = [b for b in widths if b not in known]
    if unknown or not widths:
        listed = ", ".join(map(str, known))
        raise OptionError(
            f"the ranking predicts nothing at {unknown[0] if unknown else 'no'} bits; it does at {listed}"
        )
    return widths


def recorded_loss(ranking: Ranking, record: str | Path = "the ranking's record") -> str:
    """Return the name of hessrank's loss that a ranking was made for.

    Args:
        ranking: the ranking.
        record: its file.

    Raises:
        OptionError: the record names no loss, or a user's own, whose code must be named.
    """
    name = str(ranking.info.get("loss", ""))
    if not name:
        raise OptionError(f"{record} does not tell the loss: say it (--loss)")
    if ":" in name and not is_registered(name):
        shown = printable(from_here(name, Path(record).parent))
        raise OptionError(
            f"{record} names a loss of your own, {shown!r}; no code is imported on a file's word: if you trust it, "
            f"add --loss {shlex.quote(shown)} (loss= in Python)"
        )
    return name


def _write_notes(ranking: Ranking, loss: Loss, *, same_data: bool) -> list[str]:
    notes = []
    if not same_data:
        notes.append("not the data that were ranked: what differs between them counts as an error of the prediction")
    if loss.name != ranking.info.get("loss"):
        notes.append(
            f"the ranking is for loss {ranking.info.get('loss')!r}, the increase is measured by {loss.name!r}"
        )
    return notes
