"""``hessrank policy ranking.csv``: bits and hint layers from a ranking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hessrank.errors import OptionError
from hessrank.files.paths import record_of
from hessrank.quant.registries import DISTILLATIONS, OBSERVERS, QUANTIZERS, STRATEGIES
from hessrank.terminal import say
from hessrank.text import joined

if TYPE_CHECKING:
    from pandas import DataFrame

    from hessrank.analysis.result.ranking import Ranking
    from hessrank.quant.bit_choice.summary import PolicySummary
    from hessrank.quant.policy import Policy

_WHICH, _BUDGET, _DISTILL, _SCHEME, _OUTPUT = "Which layers", "Budget", "Distillation", "Schemes", "Output"


def policy(
    ranking: Annotated[Path, typer.Argument(help="A CSV that hessrank rank wrote.", show_default=False)],
    strategy: Annotated[
        str,
        typer.Option(help=f"{', '.join(STRATEGIES)}, or file.py:fn.", rich_help_panel=_WHICH),
    ] = "sensitive-ends",
    high_bits: Annotated[
        int | None, typer.Option(help="For the sensitive layers (10).", rich_help_panel=_WHICH)
    ] = None,
    base_bits: Annotated[int | None, typer.Option(help="For all others (8).", rich_help_panel=_WHICH)] = None,
    falloff: Annotated[
        float | None,
        typer.Option(
            help="sensitive-ends: go inward while the increase is at least this part of its peak (0.25).",
            rich_help_panel=_WHICH,
        ),
    ] = None,
    count: Annotated[int | None, typer.Option(help="top-k: how many (10).", rich_help_panel=_WHICH)] = None,
    above: Annotated[float | None, typer.Option(help="threshold: more than this.", rich_help_panel=_WHICH)] = None,
    by: Annotated[
        str | None, typer.Option(help="top-k, threshold: increase, trace or mean_trace.", rich_help_panel=_WHICH)
    ] = None,
    bits: Annotated[
        str | None, typer.Option(help="budget: the widths to choose from (4,6,8,10).", rich_help_panel=_BUDGET)
    ] = None,
    budget_size_mib: Annotated[
        float | None, typer.Option(help="Most MiB of the exported file.", rich_help_panel=_BUDGET)
    ] = None,
    budget_bops: Annotated[
        float | None,
        typer.Option(help="Most MACs × weight bits × activation bits, one sample.", rich_help_panel=_BUDGET),
    ] = None,
    budget_mean_bits: Annotated[
        float | None,
        typer.Option(help="Most mean bits, by elements; weights in float count 32.", rich_help_panel=_BUDGET),
    ] = None,
    latency: Annotated[
        Path | None, typer.Option(help="CSV of measured latencies: layer, bits, latency.", rich_help_panel=_BUDGET)
    ] = None,
    budget_latency: Annotated[
        float | None, typer.Option(help="Most latency, in the table's unit.", rich_help_panel=_BUDGET)
    ] = None,
    distill: Annotated[
        str,
        typer.Option(help=f"{joined(DISTILLATIONS)}.", rich_help_panel=_DISTILL),
    ] = "penultimate",
    distill_count: Annotated[
        int | None, typer.Option(help="How many layers to distill.", rich_help_panel=_DISTILL)
    ] = None,
    distill_coeff: Annotated[
        float, typer.Option(help="Coefficient of each in the training loss.", rich_help_panel=_DISTILL)
    ] = 0.7,
    weight_scheme: Annotated[
        str, typer.Option(help="per_channel_affine, per_tensor_symmetric, …", rich_help_panel=_SCHEME)
    ] = "per_channel_affine",
    activation_scheme: Annotated[
        str, typer.Option(help="per_tensor_affine or per_tensor_symmetric.", rich_help_panel=_SCHEME)
    ] = "per_tensor_affine",
    method: Annotated[str, typer.Option(help=f"{joined(QUANTIZERS)}.", rich_help_panel=_SCHEME)] = "fixed",
    observer: Annotated[str, typer.Option(help=f"{joined(OBSERVERS)}.", rich_help_panel=_SCHEME)] = "minmax",
    out: Annotated[Path | None, typer.Option(help="YAML to write.", rich_help_panel=_OUTPUT)] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print costs and increase only; write nothing.", rich_help_panel=_OUTPUT),
    ] = False,
    pareto: Annotated[
        Path | None,
        typer.Option(help="CSV of the whole frontier: least increase for every budget.", rich_help_panel=_OUTPUT),
    ] = None,
    pareto_cost: Annotated[
        str, typer.Option(help="Its budget: bops, size, mean-bits or latency.", rich_help_panel=_OUTPUT)
    ] = "bops",
    plot: Annotated[
        Path | None, typer.Option(help="Picture of the frontier, with this policy in it.", rich_help_panel=_OUTPUT)
    ] = None,
    bit_map: Annotated[
        Path | None, typer.Option(help="Picture of the bits from input to output.", rich_help_panel=_OUTPUT)
    ] = None,
) -> None:
    """Choose bits for a ranked network, and which layers to distill; every line says why."""
    from hessrank.cli.load_inputs import read_bits
    from hessrank.cli.write_outputs import check_outputs

    inputs = (ranking, record_of(ranking), latency)
    check_outputs(out, plot, bit_map, inputs=inputs, ending=".yaml", beside={pareto: ".csv"})
    options: dict[str, Any] = {
        "high_bits": high_bits,
        "base_bits": base_bits,
        "falloff": falloff,
        "count": count,
        "above": above,
        "by": by,
        "bits": read_bits(bits) or None,
        "budget_size_mib": budget_size_mib,
        "budget_bops": budget_bops,
        "budget_mean_bits": budget_mean_bits,
        "latency": latency,
        "budget_latency": budget_latency,
    }
    if plot is not None and pareto is None:
        raise OptionError("--plot draws the frontier: give --pareto frontier.csv too")

    from hessrank.analysis.result.ranking import Ranking
    from hessrank.quant.bit_choice.alternatives import compare_policies
    from hessrank.quant.bit_choice.make_policy import make_policy
    from hessrank.quant.bit_choice.summary import summarize

    read = Ranking.read(ranking)
    made = make_policy(
        read,
        strategy,
        distill=distill,
        distill_count=distill_count,
        distill_coeff=distill_coeff,
        weight_scheme=weight_scheme,
        activation_scheme=activation_scheme,
        method=method,
        observer=observer,
        **_given(options, for_frontier=pareto is not None and strategy != "budget"),
    )
    summary, others = summarize(made, read), compare_policies(made, read)
    frame = None if pareto is None or dry_run else _frontier(read, pareto_cost, options)
    told = f"{summary}\n{others}"
    if dry_run:
        say(told)
        return
    written = [path for path in (out, pareto, plot, bit_map) if path is not None]
    if out is not None:
        made.write(out)
    if frame is not None and pareto is not None:
        _write_frontier(frame, pareto)
    if frame is not None and plot is not None:
        _draw_frontier(frame, pareto_cost, summary, plot)
    if bit_map is not None:
        _draw_bits(made, read, bit_map)
    if out is None:
        say(str(made))
    say(told, err=out is None)
    if written:
        say(f"wrote {', '.join(map(str, written))}", err=True)


def _given(options: dict[str, Any], *, for_frontier: bool) -> dict[str, Any]:
    """Return the options that were given; widths and latencies may have been meant for the frontier alone."""
    ours = {name: value for name, value in options.items() if value is not None}
    return {n: v for n, v in ours.items() if n not in ("bits", "latency")} if for_frontier else ours


def _frontier(ranking: Ranking, cost: str, options: dict[str, Any]) -> DataFrame:
    from hessrank.quant.bit_choice.strategies import Problem
    from hessrank.quant.bit_choice.strategies.budget import DEFAULT_BITS, pareto

    widths = options["bits"] or DEFAULT_BITS
    return pareto(Problem.of(ranking), cost, bits=widths, latency=options["latency"])


def _write_frontier(frame: DataFrame, path: Path) -> None:
    from hessrank.files.atomic_write import written_whole

    with written_whole(path) as beside:
        frame.to_csv(beside, index=False, float_format="%.9g")


def _draw_frontier(frame: DataFrame, cost: str, summary: PolicySummary, path: Path) -> None:
    """Draw the frontier with the policy as a mark."""
    from hessrank.cli.write_outputs import save_plot
    from hessrank.quant.bit_choice.allocation import plot_frontier

    costs = {"bops": summary.costs.bops, "size": summary.costs.size_mib, "mean-bits": summary.costs.mean_weight_bits}
    marks = {"this policy": (costs[cost], summary.increase)} if cost in costs else {}
    save_plot(lambda: plot_frontier(frame, marks=marks), path)


def _draw_bits(made: Policy, ranking: Ranking, path: Path) -> None:
    from hessrank.cli.write_outputs import save_plot
    from hessrank.quant.plots import plot_bits

    save_plot(lambda: plot_bits(made, ranking), path)
