"""Find which layer each node of MQBench's graph computes.

And what hangs behind it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import fx, nn

from hessrank.network.layer_names import Names
from hessrank.quant.layer_graph.graph import Graph

_REPEATED = re.compile(r".+_dup\d+")


@dataclass(frozen=True)
class Behind:
    """An activation's fake-quantizer in MQBench's graph.

    Attributes:
        node: the torch.fx node that calls it.
        layer: the layer whose tensor it quantizes, None for something that is no layer (a size, a constant).
    """

    node: fx.Node
    layer: str | None

    @property
    def path(self) -> str:
        """Where the fake-quantizer is found in the model."""
        return str(self.node.target)


def layers_of(module: fx.GraphModule, graph: Graph, paths: Collection[str]) -> dict[fx.Node, str]:
    """Return the layer whose tensor each node of MQBench's graph yields.

    A module that MQBench fused yields what the last of its layers does: their own nodes are gone.

    Args:
        module: what MQBench prepared.
        graph: the network's layers.
        paths: dotted paths of the modules of the network as it was.
    """
    names = Names(paths)
    own = {
        node: str(node.target) if node.op == "call_module" else names.for_node(node.name)
        for node in module.graph.nodes
        if node.op not in ("get_attr", "output")
    }
    left = set(own.values())
    return {node: _last_fused(name, graph, left) for node, name in own.items() if name in graph.nodes}


def _last_fused(name: str, graph: Graph, left: Collection[str]) -> str:
    readers = graph.consumers[name]
    while len(readers) == 1 and readers[0] not in left and not graph[readers[0]].inside:
        name, readers = readers[0], graph.consumers[readers[0]]
    return name


def quantizers_behind(module: fx.GraphModule, layers: Mapping[fx.Node, str], base: type[nn.Module]) -> list[Behind]:
    """Return the activations' fake-quantizers in the order of execution."""
    return [
        Behind(node, layers.get(node.all_input_nodes[0]))
        for node in module.graph.nodes
        if node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), base)
    ]


def reader_of(layer: str, layers: Mapping[fx.Node, str]) -> str | None:
    """Return the name of a node that reads a layer; None if nothing does.

    For ``additional_node_name``.

    MQBench then quantizes all that the node reads, so one that reads layers only goes before one that reads
    sizes too.
    """
    readers = [user for node, name in layers.items() if name == layer for user in node.users]
    readers.sort(key=lambda user: any(given not in layers for given in user.all_input_nodes))
    return readers[0].name if readers else None


def read_everywhere(behind: Behind) -> None:
    """Let every reader of a tensor read it quantized.

    MQBench forgets arguments given by name.
    """
    source = behind.node.all_input_nodes[0]
    source.replace_all_uses_with(behind.node, delete_user_cb=lambda user: user is not behind.node)


def remove(module: fx.GraphModule, behind: Behind) -> None:
    """Take a fake-quantizer out of the graph."""
    behind.node.replace_all_uses_with(behind.node.all_input_nodes[0])
    module.graph.erase_node(behind.node)
    module.delete_submodule(behind.path)


@contextmanager
def copies_share_tensors(model: nn.Module) -> Iterator[None]:
    """Let copies of parts of ``model`` share its parameters and buffers.

    Deep copies, made inside the block.

    MQBench copies a module for each further call of it, which would silently untie the weights of the calls.
    """
    tensors = [*model.parameters(), *model.buffers()]
    for tensor in tensors:
        tensor.__deepcopy__ = lambda memo, tensor=tensor: tensor  # type: ignore[method-assign, misc]
    try:
        yield
    finally:
        for tensor in tensors:
            del tensor.__deepcopy__


def restore_parameters(module: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Put parameters back where MQBench made new ones of their storage.

    Those would not be tied to others.
    """
    by_place = {parameter.data_ptr(): parameter for parameter in parameters if parameter.numel()}
    for part in module.modules():
        for name, own in part._parameters.items():
            first = None if own is None else by_place.get(own.data_ptr())
            if own is not None and first is not None and first.shape == own.shape:
                part._parameters[name] = first


def repeated_with_weights(module: fx.GraphModule, paths: Collection[str]) -> list[str]:
    """Return the calls for which MQBench copied a module that has parameters.

    Args:
        module: what MQBench prepared.
        paths: dotted paths of the modules of the network as it was.
    """
    added = [str(node.target) for node in module.graph.nodes if node.op == "call_module" and node.target not in paths]
    repeated = [name for name in added if _REPEATED.fullmatch(name)]
    return [name for name in repeated if any(True for _ in module.get_submodule(name).parameters())]
