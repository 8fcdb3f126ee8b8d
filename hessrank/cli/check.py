"""``hessrank check policy.yaml MODEL``: does a policy fit a network, and what does it leave in float?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hessrank.cli.option_groups import (
    Arch,
    ArchArgs,
    DataSpec,
    Gain,
    IgnoreKeys,
    InputShape,
    ModelPath,
    Plugin,
    Threads,
    TrustPickle,
    TrustSize,
    WeightsKey,
)
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


def check(
    policy: Annotated[Path, typer.Argument(help="The policy.", show_default=False)],
    model: ModelPath,
    plugin: Plugin = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    trust_pickle: TrustPickle = False,
    trust_size: TrustSize = False,
    weights_key: WeightsKey = None,
    ignore_keys: IgnoreKeys = None,
    data: DataSpec = None,
    input_shape: InputShape = None,
    gain: Gain = None,
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

    from hessrank.cli.load_inputs import read_inputs
    from hessrank.data.batch import as_samples, make_batch
    from hessrank.quant.policy import check as find
    from hessrank.quant.prepare.tracing import trace

    inputs = read_inputs(
        model,
        arch=arch,
        arch_args=arch_args,
        trust_pickle=trust_pickle,
        weights_key=weights_key,
        ignore_keys=ignore_keys,
        data=data,
        input_shape=input_shape,
        num_samples=1,
        gain=gain,
        threads=threads,
    )
    for note in inputs.loaded.notes:
        say(f"note: {note}", err=True)
    one = make_batch(as_samples(inputs.data, 1), [0], inputs.loaded.model, needs_target=False)
    traced = trace(inputs.loaded.model, one)
    graph = traced.graph
    findings = find(read, graph)
    for line in (*_coverage(read, graph), *(f"note: {note}" for note in traced.notes), *map(str, findings)):
        say(line)
    if findings:
        say(f"{len(findings)} finding{'s' * (len(findings) > 1)}{_hint(read, graph)}")
        raise typer.Exit(FOUND_SOMETHING)


def _coverage(policy: Policy, graph: Graph) -> list[str]:
    """Return what is quantized in a line, and every tensor that is not, with the reason; kernels' insides last."""
    from hessrank.quant.layer_graph.quantizer_placement import IN_KERNEL
    from hessrank.quant.policy import place_policy_quantizers

    placement = place_policy_quantizers(policy, graph)
    kernels = {f"activation of {n}": why for n, why in placement.unquantized.items() if why.startswith(IN_KERNEL)}
    width = max(map(len, (*kernels, *placement.in_float)), default=0)
    inside, others = ([f"  {name:{width}}  {why}" for name, why in d.items()] for d in (kernels, placement.in_float))
    counts = f"{len(placement.weights)} weights and {len(placement.activations)} activations are quantized"
    within = [f"inside kernels, where nothing is to be quantized ({len(inside)}):", *inside] if inside else []
    return [*within, f"{counts}; {len(others)} tensors stay in float{':' * bool(others)}", *others]


def _hint(policy: Policy, graph: Graph) -> str:
    """Return what to think of when most names are unknown."""
    unknown = [name for name in policy.layers if name not in graph.nodes]
    return ": was the policy made for another network?" if 2 * len(unknown) > len(policy.layers) else ""
