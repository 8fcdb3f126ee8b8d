"""Find which sizes of the inputs may vary.

Asked of the model itself, by running it at another size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hessrank.quant.export.errors import ExportError
from hessrank.quant.prepare.model import QuantizedModel
from hessrank.text import first_line, shape_text

Inputs = Mapping[str, Tensor]
_SPATIAL = {4: {2: "height", 3: "width"}, 5: {2: "depth", 3: "height", 4: "width"}}


@dataclass(frozen=True)
class Axis:
    """A size that inputs share and that may vary.

    Attributes:
        name: ``batch``, ``height``, ``width``, ``depth``; or ``dim_1`` where a dimension means anything.
        places: which dimension of which inputs.
        size: in the inputs that were given.
        other: another size that the model takes.
    """

    name: str
    places: tuple[tuple[str, int], ...]
    size: int
    other: int


def named_inputs(model: QuantizedModel, inputs: object) -> dict[str, Tensor]:
    """Return the inputs by name, on the CPU.

    In the order in which the model takes them.

    Args:
        model: the prepared model.
        inputs: one tensor, a sequence of tensors, or tensors by name; each with its batch dimension.

    Raises:
        ExportError: too many, too few, or something that is no tensor.
    """
    names = [str(node.target).lstrip("*") for node in model.graph.nodes if node.op == "placeholder"]
    if isinstance(inputs, Mapping):
        if set(inputs) != set(names):
            raise ExportError(f"the model's inputs are {', '.join(names)}; got {', '.join(map(str, inputs))}")
        given = [inputs[name] for name in names]
    else:
        given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    if len(given) != len(names):
        raise ExportError(f"the model takes {len(names)} inputs ({', '.join(names)}), got {len(given)}")
    for name, tensor in zip(names, given, strict=True):
        if not isinstance(tensor, Tensor):
            raise ExportError(f"input {name!r} is a {type(tensor).__name__}: ONNX export takes tensors")
        if not tensor.numel():
            raise ExportError(f"input {name!r} is empty ({shape_text(tensor.shape)}): give one sample at least")
        if not bool(torch.isfinite(tensor).all()):
            raise ExportError(f"input {name!r} holds NaN or infinity: nothing can be compared on it")
    return {name: tensor.detach().cpu() for name, tensor in zip(names, given, strict=True)}


def run(model: QuantizedModel, inputs: Inputs) -> object:
    """Return what the model makes of inputs.

    Raises:
        ExportError: it does not take them.
    """
    with torch.no_grad():
        return attempted(inputs, lambda: model.forward(*inputs.values()))  # a call would print an error's traceback


def attempted(inputs: Inputs, work: Callable[[], object]) -> object:
    """Return what running a model on inputs gives.

    Raises:
        ExportError: it does not take them.
    """
    try:
        return work()
    except Exception as error:  # whatever a model raises
        shapes = ", ".join(f"{name} {'×'.join(map(str, tensor.shape))}" for name, tensor in inputs.items())
        raise ExportError(f"the model does not run on these inputs ({shapes}): {first_line(error)}") from error


def free_axes(model: QuantizedModel, inputs: Inputs) -> tuple[list[Axis], list[str]]:
    """Return the sizes that may vary, and a note on each that the model itself fixes.

    Dimension 0 is the batch. Of pictures (4 or 5 dimensions) the spatial sizes are tried, of anything else
    every dimension.
    """
    axes, notes = [], []
    for (name, size), places in _candidates(inputs).items():
        why = ""
        for other in [other for other in (size // 2, 2 * size, size + 1) if other not in (0, size)]:
            axis = Axis(name, tuple(places), size, other)
            try:
                run(model, resized(inputs, [axis]))
            except ExportError as error:
                why = why or first_line(error.__cause__ or error)
                continue
            axes.append(axis)
            break
        else:
            notes.append(f"{name} is fixed at {size}, the model takes no other: {why}")
    return axes, notes


def resized(inputs: Inputs, axes: list[Axis]) -> dict[str, Tensor]:
    """Return inputs of the axes' other sizes.

    They are repeated and cut, so that their values stay in range.
    """
    result = dict(inputs)
    for axis in axes:
        for name, dim in axis.places:
            index = torch.arange(axis.other) % axis.size
            result[name] = result[name].index_select(dim, index)
    return result


def _candidates(inputs: Inputs) -> dict[tuple[str, int], list[tuple[str, int]]]:
    """Return the places of each size, by name and size.

    Inputs of one size vary together.
    """
    found: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for name, tensor in inputs.items():
        words = _SPATIAL.get(tensor.ndim, {dim: f"dim_{dim}" for dim in range(1, tensor.ndim)})
        for dim in range(tensor.ndim):
            word = "batch" if dim == 0 else words.get(dim)
            if word is not None and tensor.shape[dim]:
                found.setdefault((word, tensor.shape[dim]), []).append((name, dim))
    return found
