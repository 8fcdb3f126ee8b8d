"""``hessrank policy ranking.csv``: bits and hint layers from a ranking."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hessrank.cli.commands.policy_options import (
    BudgetOptions,
    HintOptions,
    PolicyOutputs,
    SchemeOptions,
    StrategyOptions,
)
from hessrank.cli.option_groups import RankingPath
from hessrank.cli.takes_options import takes_options
from hessrank.errors import OptionError
from hessrank.files.paths import record_of
from hessrank.terminal import say

if TYPE_CHECKING:
    from pandas import DataFrame

    from hessrank.analysis.result.ranking import Ranking
    from hessrank.quant.bit_choice.summary import PolicySummary
    from hessrank.quant.policy import Policy


@takes_options
def policy(
    ranking: RankingPath,
    which: StrategyOptions,
    budget: BudgetOptions,
    hints: HintOptions,
    schemes: SchemeOptions,
    outputs: PolicyOutputs,
) -> None:
    """Choose bits for a ranked network, and which layers to distill; every line says why."""
    from hessrank.cli.output_paths import check_outputs

    read = (ranking, record_of(ranking), budget.latency)
    pictures = outputs.plot, outputs.bit_map
    check_outputs(outputs.out, *pictures, inputs=read, ending=".yaml", beside={outputs.pareto: ".csv"})
    options = _list_given(which, budget)
    if outputs.plot is not None and outputs.pareto is None:
        raise OptionError("--plot draws the frontier: give --pareto frontier.csv too")

    from hessrank.analysis.result.ranking import Ranking
    from hessrank.quant.bit_choice.alternatives import compare_policies
    from hessrank.quant.bit_choice.make_policy import make_policy
    from hessrank.quant.bit_choice.strategies import Problem
    from hessrank.quant.bit_choice.strategies.budget import DEFAULT_BITS, pareto
    from hessrank.quant.bit_choice.summary import summarize

    ranked = Ranking.read(ranking)
    # widths and latencies may have been meant for the frontier alone
    left_out = ("bits", "latency") if outputs.pareto is not None and which.strategy != "budget" else ()
    own = {name: value for name, value in options.items() if name not in left_out}
    made = make_policy(ranked, which.strategy, **asdict(hints), **asdict(schemes), **own)
    summary = summarize(made, ranked)
    report = f"{summary}\n{compare_policies(made, ranked)}"
    frontier = None
    if outputs.pareto is not None and not outputs.dry_run:
        widths = options.get("bits", DEFAULT_BITS)
        frontier = pareto(Problem.of(ranked), outputs.pareto_cost, bits=widths, latency=budget.latency)
    if outputs.dry_run:
        say(report)
        return
    written = _write_files(outputs, made, ranked, frontier, summary)
    if outputs.out is None:
        say(str(made))
    say(report, err=outputs.out is None)
    if written:
        say(f"wrote {', '.join(map(str, written))}", err=True)


def _list_given(which: StrategyOptions, budget: BudgetOptions) -> dict[str, Any]:
    """Return the options of a strategy that were given, by name.

    Raises:
        OptionError: ``--bits`` are no numbers.
    """
    from hessrank.cli.option_values import read_bits

    options = {**asdict(which), **asdict(budget), "bits": read_bits(budget.bits) or None}
    return {name: value for name, value in options.items() if value is not None and name != "strategy"}


def _write_files(
    outputs: PolicyOutputs, made: Policy, ranking: Ranking, frontier: DataFrame | None, summary: PolicySummary
) -> list[Path]:
    """Write the files that were asked for; return their paths."""
    from hessrank.cli.write_outputs import save_plot
    from hessrank.files.atomic_write import written_whole
    from hessrank.quant.bit_choice.allocation import plot_frontier
    from hessrank.quant.plots import plot_bits

    if outputs.out is not None:
        made.write(outputs.out)
    if frontier is not None and outputs.pareto is not None:
        with written_whole(outputs.pareto) as beside:
            frontier.to_csv(beside, index=False, float_format="%.9g")
    if frontier is not None and outputs.plot is not None:
        found = summary.costs
        costs = {"bops": found.bops, "size": found.size_mib, "mean-bits": found.mean_weight_bits}
        cost = costs.get(outputs.pareto_cost)
        marks = {} if cost is None else {"this policy": (cost, summary.increase)}
        save_plot(partial(plot_frontier, frontier, marks=marks), outputs.plot)
    if outputs.bit_map is not None:
        save_plot(partial(plot_bits, made, ranking), outputs.bit_map)
    return [path for path in (outputs.out, outputs.pareto, outputs.plot, outputs.bit_map) if path is not None]
