"""``hessrank check policy.yaml MODEL``: does a policy fit a network?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hessrank.cli.option_groups import ComputeOptions, DataOptions, ModelOptions, Plugin, Threads
from hessrank.cli.takes_options import takes_options
from hessrank.terminal import say

if TYPE_CHECKING:
    from hessrank.quant.layer_graph.graph import Graph
    from hessrank.quant.policy import Policy

FOUND_SOMETHING = 1


def _print_schema(wanted: bool) -> None:
    if wanted:
        from hessrank.quant.policy import policy_schema

        say(json.dumps(policy_schema(), indent=1))
        raise typer.Exit


@takes_options
def check(
    *,
    policy: Annotated[Path, typer.Argument(help="The policy.", show_default=False)],
    plugin: Plugin = None,
    source: ModelOptions,
    data: DataOptions,
    threads: Threads = None,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            help="Print the JSON schema of a policy, for editors.",
            callback=_print_schema,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Check a policy against MODEL: unknown names, entries that do nothing, tensors that stay in float.

    Exits with 1 if the policy names what is not there, contradicts itself, or has entries that do nothing.
    """
    from hessrank.quant.policy import Policy

    read = Policy.read(policy, plugins=plugin or ())

    from hessrank.cli.load_inputs import make_example, read_inputs
    from hessrank.cli.print_results import print_notes
    from hessrank.quant.policy import check as find_mistakes
    from hessrank.quant.prepare.tracing import trace

    inputs = read_inputs(source, data, ComputeOptions(threads=threads), num_samples=1)
    print_notes(inputs.loaded.notes)
    traced = trace(inputs.loaded.model, make_example(inputs.data, inputs.loaded.model))
    findings = find_mistakes(read, traced.graph)
    notes = (f"note: {note}" for note in traced.notes)
    for line in (*describe_coverage(read, traced.graph), *notes, *map(str, findings)):
        say(line)
    if findings:
        unknown = [name for name in read.layers if name not in traced.graph.nodes]
        hint = ": was the policy made for another network?" if 2 * len(unknown) > len(read.layers) else ""
        say(f"{len(findings)} finding{'s' * (len(findings) > 1)}{hint}")
        raise typer.Exit(FOUND_SOMETHING)


def describe_coverage(policy: Policy, graph: Graph) -> list[str]:
    """Return lines: how much is quantized, and why each other tensor is not.

    Tensors inside kernels come first.
    """
    from hessrank.quant.layer_graph.quantizer_placement import IN_KERNEL
    from hessrank.quant.policy import place_policy_quantizers

    placement = place_policy_quantizers(policy, graph)
    kernels = {f"activation of {n}": why for n, why in placement.unquantized.items() if why.startswith(IN_KERNEL)}
    width = max(map(len, (*kernels, *placement.in_float)), default=0)
    inside, others = ([f"  {name:{width}}  {why}" for name, why in d.items()] for d in (kernels, placement.in_float))
    counts = f"{len(placement.weights)} weights and {len(placement.activations)} activations are quantized"
    within = [f"inside kernels, where nothing is to be quantized ({len(inside)}):", *inside] if inside else []
    return [*within, f"{counts}; {len(others)} tensors stay in float{':' * bool(others)}", *others]
