"""Which layers to distill, and how strongly."""

from __future__ import annotations

from hessrank.bounds import check_whole
from hessrank.errors import OptionError
from hessrank.quant.bit_choice.strategies.problem import Problem
from hessrank.quant.layer_graph.network_ends import before_last
from hessrank.quant.registries import DISTILLATIONS
from hessrank.user_code import user_code


@DISTILLATIONS.register("penultimate")
def penultimate(problem: Problem, count: int | None = None) -> list[str]:
    """Choose the last layer but one of each sub-network.

    Those of the last sub-network first.

    Example:
        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(4)))
        >>> ranking = hessrank.rank(network, torch.eye(2))
        >>> hessrank.make_policy(ranking, distill="penultimate").distill_config
        ('2',)
    """
    exits = [layer for part in reversed(problem.sub_networks) for layer in reversed(part.exits)]
    found = dict.fromkeys(before_last(problem.graph, layer) for layer in exits)
    return [name for name in found if name is not None][:count]


@DISTILLATIONS.register("top-trace")
def top_trace(problem: Problem, count: int | None = None) -> list[str]:
    """Choose the layers with the largest traces.

    At most one a resolution and one a block of each sub-network.

    Neighbors at one resolution, or inside one block, are near-duplicates: what one teaches, the other knows.

    Example:
        A step of layer 0 moves the output ten times as far as one of layer 1, at the same resolution:

        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(3)))
        >>> _ = torch.nn.init.constant_(network[1].weight, 10.0)
        >>> ranking = hessrank.rank(network, torch.ones(2, 1))
        >>> hessrank.make_policy(ranking, distill="top-trace", distill_count=2).distill_config
        ('0',)
    """
    chosen: list[str] = []
    seen: set[tuple[str, object]] = set()
    for layer in sorted(_candidates(problem), key=lambda name: -float(problem.rows[name]["trace"])):
        part = next((p.name for p in problem.sub_networks if layer in p.layers), "")
        block = layer.rpartition(".")[0] or layer
        marks: set[tuple[str, object]] = {(part, problem.graph[layer].shape[1:]), (part, block)}
        if not marks & seen:
            seen |= marks
            chosen.append(layer)
    return chosen[: 2 if count is None else count]


@DISTILLATIONS.register("head")
def head(problem: Problem, count: int | None = None) -> list[str]:
    """Choose the first layers of each sub-network.

    One each unless ``count`` is larger.

    Example:
        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(4)))
        >>> ranking = hessrank.rank(network, torch.eye(2))
        >>> hessrank.make_policy(ranking, distill="head").distill_config
        ('0',)
    """
    return _placed(problem, count, 0.0)


@DISTILLATIONS.register("middle")
def middle(problem: Problem, count: int | None = None) -> list[str]:
    """Choose the layers halfway through each sub-network.

    One each unless ``count`` is larger.

    Example:
        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(4)))
        >>> ranking = hessrank.rank(network, torch.eye(2))
        >>> hessrank.make_policy(ranking, distill="middle").distill_config
        ('1',)
    """
    return _placed(problem, count, 0.5)


@DISTILLATIONS.register("tail")
def tail(problem: Problem, count: int | None = None) -> list[str]:
    """Choose the last layers of each sub-network before its output.

    One each unless ``count`` is larger.

    Example:
        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(4)))
        >>> ranking = hessrank.rank(network, torch.eye(2))
        >>> hessrank.make_policy(ranking, distill="tail").distill_config
        ('2',)
    """
    return _placed(problem, count, 1.0)


@DISTILLATIONS.register("none")
def none(problem: Problem, count: int | None = None) -> list[str]:
    """Choose nothing.

    Example:
        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(4)))
        >>> ranking = hessrank.rank(network, torch.eye(2))
        >>> hessrank.make_policy(ranking, distill="none").distill_config
        ()
    """
    return []


def choose_hints(problem: Problem, strategy: str, count: int | None) -> list[str]:
    """Return the layers that a distillation strategy, given by name, chooses.

    Raises:
        UnknownNameError: there is no such strategy.
        OptionError: ``count`` is less than 1.
    """
    if count is not None:
        check_whole("distill_count", count, least=1)
    choose = DISTILLATIONS.resolve_or_import(strategy)
    with user_code(f"the strategy {strategy!r} of distillation", OptionError):
        return choose(problem, count)


def _candidates(problem: Problem) -> list[str]:
    """Return what can be a hint.

    The tensor of a kernel with a weight that the network does not return.
    """
    graph, hidden = problem.graph, set(problem.graph.outputs)
    exits = {problem.kernels.holding(layer) for part in problem.sub_networks for layer in part.exits}
    kernels = problem.kernels.by_name.values()
    return [k.name for k in kernels if k.weight and k.name not in hidden | exits and len(graph[k.name].shape) > 0]


def _placed(problem: Problem, count: int | None, where: float) -> list[str]:
    """Return the candidates nearest to a place in each sub-network.

    0 is its beginning, 1 its end; sub-networks take turns.
    """
    wanted = len(problem.sub_networks) if count is None else count
    candidates, queues = _candidates(problem), []
    for part in problem.sub_networks:
        inside = set(part.layers)
        layers = [name for name in candidates if name in inside]
        target = where * (len(layers) - 1)
        queues.append([layers[i] for _, i in sorted((abs(i - target), i) for i in range(len(layers)))])
    turns = [queue[turn] for turn in range(wanted) for queue in queues if turn < len(queue)]
    return turns[:wanted]
