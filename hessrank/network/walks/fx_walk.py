"""Walks along a torch.fx graph, with the layer names that MQBench gives too."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from hessrank.data.batch import Batch
from hessrank.network.layer_names import Names, module_paths, node_kind
from hessrank.network.walks.any_names import Tracer
from hessrank.network.walks.call import Call, Visit, first_tensor, visit_nest, visit_tensor
from hessrank.network.walks.hook_walk import hooked


class GraphWalk(fx.Interpreter):
    """Walks node by node through a torch.fx graph of the model.

    The model itself is not copied.

    Attributes:
        graph: the graph.
        names: the name of every node that may yield a layer.
        handed_on: of the layers inside a leaf module, those whose tensor a node of the graph yields.
        floating: the nodes that yielded a floating-point tensor in the last run.
        from_data: the nodes whose tensors depend on the data.
    """

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        """Trace ``model`` with the arguments of ``batch``; others keep their defaults.

        Raises:
            Exception: whatever torch.fx raises on control flow it cannot follow.
        """
        super().__init__(model, graph=_trace(model, batch))
        self.extra_traceback = False  # or else torch.fx adds lines to the message of whatever is raised
        names = Names(module_paths(model))
        self.names = {
            node: _give_name(node, names) for node in self.graph.nodes if node.op not in ("get_attr", "output")
        }
        self.handed_on: dict[str, fx.Node] = {}
        self._model = model
        self._visit: Visit
        self._shown_inside: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._arguments: Mapping[str, Any] = {}
        self._with_weights = {
            node
            for node in self.graph.nodes
            if node.op == "call_module" and any(True for _ in self.fetch_attr(str(node.target)).parameters())
        }
        self.floating: set[fx.Node] = set()
        self.from_data: set[fx.Node] = set()
        self._from_weights: set[fx.Node] = set()
        self._from_tuples: set[fx.Node] = set()

    def __call__(self, batch: Batch, visit: Visit) -> Any:
        """Run the graph on ``batch``."""
        self._arguments = _bind_arguments(self._model, batch)
        self._visit = visit
        self.floating.clear()
        self.from_data.clear()
        self._from_weights.clear()
        called = tuple({f"{node.target}." for node in self.graph.nodes if node.op == "call_module"})
        # what lies inside the graph's leaf modules: torch.nn.TransformerEncoder and the like
        inner = {path: module for path, module in self._model.named_modules() if path.startswith(called)}
        with hooked(inner, visit) as self._shown_inside:
            try:
                return self.run(enable_io_processing=False)
            finally:
                self.env = {}

    @property
    def nodes(self) -> dict[str, fx.Node]:
        """The node that yields each layer's tensor; after a run."""
        return {name: node for node, name in self.names.items()} | self.handed_on

    def placeholder(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Look an argument up by its name; one that was not given has its default."""
        return self._arguments.get(str(target).lstrip("*"), args[0] if args else None)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and show what it yields."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        value = getattr(self, n.op)(n.target, args, kwargs)
        if args and not isinstance(args[0], Tensor):
            self._from_tuples.add(n)
        self._trace_origin(n, value)
        if n.op == "placeholder":
            return self._show_argument(n, value)
        if n not in self.names or self._was_shown(n, value):
            return value
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        call = Call(
            self.names[n],
            self._find_kind(n),
            str(n.target) if module is not None else None,
            module,
            first_tensor(args, kwargs),
            n in self.from_data,
            n in self._from_weights,
        )
        return visit_tensor(call, value, self._visit)

    def _find_kind(self, node: fx.Node) -> str:
        """Return what a node does.

        What takes a tensor out of a tuple is of the kind of what made the tuple.
        """
        while node_kind(node) == "getitem" and node in self._from_tuples:
            node = node.all_input_nodes[0]
        return type(self.fetch_attr(str(node.target))).__name__ if node.op == "call_module" else node_kind(node)

    def _was_shown(self, node: fx.Node, value: Any) -> bool:
        """Return whether a node only hands on a tensor that was shown.

        A node that writes in place yields something new.
        """
        hands_on = node.op == "call_module" or node_kind(node) in ("getitem", "get")
        if not (hands_on and isinstance(value, Tensor) and value in self._shown_inside):
            return False
        self.handed_on[self._shown_inside[value]] = node
        return True

    def _show_argument(self, node: fx.Node, value: Any) -> Any:
        """Show the tensors of an argument, each once.

        What the graph then takes out of a tuple or dict is not shown again.
        """

        def show(call: Call, tensor: Tensor) -> Tensor:
            tensor = self._visit(call, tensor)
            self._shown_inside[tensor] = call.name
            return tensor

        name = self.names[node]
        return visit_nest(value, lambda place: Call(name + place, "input", None, None, None), show)

    def _trace_origin(self, node: fx.Node, value: Any) -> None:
        """Note whether a node's tensors come from the data and from weights.

        Sizes carry neither on.
        """
        if not isinstance(value, Tensor) and not any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
            return
        if isinstance(value, Tensor) and value.is_floating_point():
            self.floating.add(node)
        before = node.all_input_nodes
        if node.op == "placeholder" or any(n in self.from_data for n in before):
            self.from_data.add(node)
        if (
            node in self._with_weights
            or isinstance(value, nn.Parameter)
            or any(n in self._from_weights for n in before)
        ):
            self._from_weights.add(node)


def _give_name(node: fx.Node, names: Names) -> str:
    """Return the layer name of a node; that of ``*args`` is the parameter's own."""
    target = str(node.target)
    if node.op == "call_module":
        return names.for_module(target)
    return names.for_node(target.lstrip("*") if target.startswith("*") else node.name)


def _trace(model: nn.Module, batch: Batch) -> fx.Graph:
    given = _bind_arguments(model, batch)
    parameters = inspect.signature(model.forward).parameters.values()
    fixed = {p.name: p.default for p in parameters if p.name not in given and p.default is not p.empty}
    fixed |= {name: value for name, value in given.items() if isinstance(value, bool)}
    return Tracer().trace(model, concrete_args=fixed)


def _bind_arguments(model: nn.Module, batch: Batch) -> Mapping[str, Any]:
    return inspect.signature(model.forward).bind(*batch.args, **batch.kwargs).arguments
