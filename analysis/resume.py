"""Checks that an interrupted ranking, or another process's, is the same as this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from hessrank.analysis.options import Options
from hessrank.analysis.ranking_inputs import RankingInputs
from hessrank.analysis.result.assemble import read_versions
from hessrank.analysis.sampling.checkpoint import Checkpoint, find_difference
from hessrank.errors import OptionError
from hessrank.network.outputs import output_tensors


def ranking_key(inputs: RankingInputs, model: Mapping[str, Any], options: Options, estimator: str) -> dict[str, Any]:
    """Return all that a ranking's bytes depend on, in plain values.

    Args:
        inputs: what is ranked.
        model: its record, as :func:`hessrank.analysis.result.assemble.describe_model` returns it.
        options: what was asked for.
        estimator: an estimator's name, or ``auto``.
    """
    size = sum(float(torch.linalg.vector_norm(tensor)) for tensor in output_tensors(inputs.output))
    return {
        "model weights": model["weights_sha256"],
        "data": inputs.contents.sha256,
        "number of samples": len(inputs.batches),
        "loss": inputs.loss.name,
        "estimator": estimator,
        **asdict(options),
        "layers": " ".join(inputs.layer_names),
        "size of the first output": f"{size:.3g}",
        **read_versions(),
    }


def check_same_ranking(inputs: RankingInputs, key: Mapping[str, Any], checkpoint: Checkpoint | None) -> None:
    """Refuse processes that do another ranking, and another ranking's checkpoint.

    Raises:
        OptionError: naming what differs.
    """
    team = inputs.batches.team
    for place, others in enumerate(team.gather_values(key)):
        if others != key:
            raise OptionError(
                f"process {place} does another ranking than process {team.place}: {find_difference(key, others)}"
            )
    if checkpoint is not None:
        checkpoint.open(key, team)
