"""torch.export of a converted model, with sizes that vary."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from dataclasses import dataclass

import torch
from torch import fx
from torch.export import Dim, ExportedProgram

from hessrank.quant.export.errors import ExportError
from hessrank.quant.export.plain_names import HOLDER, OWN_NAMES, own_name
from hessrank.quant.export.sizes import Axis, Inputs, resized
from hessrank.text import first_line


@dataclass(frozen=True)
class Captured:
    """A model as torch.export sees it.

    Attributes:
        program: the graph of ATen operators and ours.
        dynamic: name of every dimension that varies, by input.
        symbols: the names of torch.export's symbols ("s77" is "height").
        notes: sizes that torch.export fixes, and why.
        called: what modules and tensors were called, by their names in the program.
    """

    program: ExportedProgram
    dynamic: dict[str, dict[int, str]]
    symbols: dict[str, str]
    notes: tuple[str, ...]
    called: dict[str, str]


def capture(model: fx.GraphModule, inputs: Inputs, axes: list[Axis]) -> Captured:
    """Export ``model`` with the sizes in ``axes`` left open.

    Args:
        model: from :func:`~hessrank.quant.export.convert.exportable`.
        inputs: sample inputs.
        axes: what varies.

    Raises:
        ExportError: torch.export cannot follow the model; with the layer it was in.
    """
    # torch.export takes a size of 1 for a constant, so it is shown another one
    shown = resized(inputs, [axis for axis in axes if axis.size == 1])
    program = _export(model, shown, axes, Dim.AUTO)
    given = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in given]
    shapes = dict(zip(inputs, (node.meta["val"].shape for node in nodes), strict=True))
    dynamic: dict[str, dict[int, str]] = {name: {} for name in inputs}
    symbols: dict[str, str] = {}
    notes = []
    for axis in axes:
        fixed = [place for place in axis.places if isinstance(shapes[place[0]][place[1]], int)]
        if fixed:
            notes.append(f"{axis.name} is fixed at {axis.size} by torch.export: {_why(model, shown, axis)}")
        for name, dim in axis.places:
            if (name, dim) not in fixed:
                own = f"{name}_{axis.name}" if axis.name in symbols.values() else axis.name
                dynamic[name][dim] = symbols.setdefault(str(shapes[name][dim]), own)
    return Captured(program, dynamic, symbols, tuple(notes), model.meta[OWN_NAMES])


def _export(model: fx.GraphModule, inputs: Inputs, axes: list[Axis], how: object) -> ExportedProgram:
    spec: dict[str, dict[int, object]] = {name: {} for name in inputs}
    for axis in axes:
        for name, dim in axis.places:
            spec[name][dim] = how
    entered: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, _args, path=path: entered.append(path))
        for path, module in model.named_modules()
        if path
    ]
    try:
        # a size that has to be a multiple of something is then checked at run time instead of being fixed
        with redirect_stderr(io.StringIO()):  # a graph module prints the traceback of an error
            return torch.export.export(
                model,
                tuple(inputs.values()),
                dynamic_shapes=tuple(spec.values()),
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # torch.export raises what the model raises, and a dozen kinds of its own
        layer = next((path for path in reversed(entered) if ".plain" not in path), "")
        where = f" in {own_name(layer, model.meta[OWN_NAMES]).removeprefix(f'{HOLDER}.')!r}" if layer else ""
        raise ExportError(f"torch.export fails{where}: {first_line(error)}") from error
    finally:
        for hook in hooks:
            hook.remove()


def _why(model: fx.GraphModule, inputs: Inputs, axis: Axis) -> str:
    """Return torch.export's reason for making a size a constant.

    It only gives one when it must not.
    """
    try:
        _export(model, inputs, [axis], Dim.DYNAMIC)
    except ExportError as error:
        lines = [line.strip(" -") for line in str(error.__cause__).splitlines()]
        return next((line for line in lines if "speciali" in line), first_line(error.__cause__ or error))
    return "together with the other sizes"
