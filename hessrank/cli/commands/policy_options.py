"""The options of ``hessrank policy``, in the groups that ``--help`` shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hessrank.quant.registries import DISTILLATIONS, OBSERVERS, QUANTIZERS, STRATEGIES
from hessrank.text import joined

_WHICH, _BUDGET, _DISTILL, _SCHEME, _OUTPUT = "Which layers", "Budget", "Distillation", "Schemes", "Output"


@dataclass(frozen=True)
class StrategyOptions:
    """Which strategy chooses the bits, and what it takes."""

    strategy: Annotated[
        str,
        typer.Option(help=f"{', '.join(STRATEGIES)}, or file.py:fn.", rich_help_panel=_WHICH),
    ] = "sensitive-ends"
    high_bits: Annotated[
        int | None,
        typer.Option(help="For the sensitive layers (10).", rich_help_panel=_WHICH),
    ] = None
    base_bits: Annotated[int | None, typer.Option(help="For all others (8).", rich_help_panel=_WHICH)] = None
    falloff: Annotated[
        float | None,
        typer.Option(
            help="sensitive-ends: go inward while the increase is at least this part of its peak (0.25).",
            rich_help_panel=_WHICH,
        ),
    ] = None
    count: Annotated[int | None, typer.Option(help="top-k: how many (10).", rich_help_panel=_WHICH)] = None
    above: Annotated[float | None, typer.Option(help="threshold: more than this.", rich_help_panel=_WHICH)] = None
    by: Annotated[
        str | None, typer.Option(help="top-k, threshold: increase, trace or mean_trace.", rich_help_panel=_WHICH)
    ] = None


@dataclass(frozen=True)
class BudgetOptions:
    """Among which widths, and within which limits."""

    bits: Annotated[
        str | None, typer.Option(help="budget: the widths to choose from (4,6,8,10).", rich_help_panel=_BUDGET)
    ] = None
    budget_size_mib: Annotated[
        float | None, typer.Option(help="Most MiB of the exported file.", rich_help_panel=_BUDGET)
    ] = None
    budget_bops: Annotated[
        float | None,
        typer.Option(help="Most MACs × weight bits × activation bits, one sample.", rich_help_panel=_BUDGET),
    ] = None
    budget_mean_bits: Annotated[
        float | None,
        typer.Option(help="Most mean bits, by elements; weights in float count 32.", rich_help_panel=_BUDGET),
    ] = None
    latency: Annotated[
        Path | None, typer.Option(help="CSV of measured latencies: layer, bits, latency.", rich_help_panel=_BUDGET)
    ] = None
    budget_latency: Annotated[
        float | None, typer.Option(help="Most latency, in the table's unit.", rich_help_panel=_BUDGET)
    ] = None


@dataclass(frozen=True)
class HintOptions:
    """Which layers to distill, and how strongly."""

    distill: Annotated[
        str,
        typer.Option(help=f"{joined(DISTILLATIONS)}.", rich_help_panel=_DISTILL),
    ] = "penultimate"
    distill_count: Annotated[
        int | None, typer.Option(help="How many layers to distill.", rich_help_panel=_DISTILL)
    ] = None
    distill_coeff: Annotated[
        float, typer.Option(help="Coefficient of each in the training loss.", rich_help_panel=_DISTILL)
    ] = 0.7


@dataclass(frozen=True)
class SchemeOptions:
    """On which grids to quantize, and how their ranges are found."""

    weight_scheme: Annotated[
        str, typer.Option(help="per_channel_affine, per_tensor_symmetric, …", rich_help_panel=_SCHEME)
    ] = "per_channel_affine"
    activation_scheme: Annotated[
        str, typer.Option(help="per_tensor_affine or per_tensor_symmetric.", rich_help_panel=_SCHEME)
    ] = "per_tensor_affine"
    method: Annotated[
        str,
        typer.Option(help=f"{joined(QUANTIZERS)}.", rich_help_panel=_SCHEME),
    ] = "fixed"
    observer: Annotated[str, typer.Option(help=f"{joined(OBSERVERS)}.", rich_help_panel=_SCHEME)] = "minmax"


@dataclass(frozen=True)
class PolicyOutputs:
    """What is written."""

    out: Annotated[Path | None, typer.Option(help="YAML to write.", rich_help_panel=_OUTPUT)] = None
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print costs and increase only; write nothing.", rich_help_panel=_OUTPUT),
    ] = False
    pareto: Annotated[
        Path | None,
        typer.Option(help="CSV of the whole frontier: least increase for every budget.", rich_help_panel=_OUTPUT),
    ] = None
    pareto_cost: Annotated[
        str, typer.Option(help="Its budget: bops, size, mean-bits or latency.", rich_help_panel=_OUTPUT)
    ] = "bops"
    plot: Annotated[
        Path | None, typer.Option(help="Picture of the frontier, with this policy in it.", rich_help_panel=_OUTPUT)
    ] = None
    bit_map: Annotated[
        Path | None, typer.Option(help="Picture of the bits from input to output.", rich_help_panel=_OUTPUT)
    ] = None
