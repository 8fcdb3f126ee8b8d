"""Finds the layers with a curved operation between them and the output.

Where all that follows a layer is piecewise linear, the generalized Gauss-Newton matrix *is* the Hessian of
the loss at that layer (Schraudolph 2002, section 3). The autograd graph tells what follows, also for
networks that torch.fx cannot trace. What is not known to be piecewise linear counts as curved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor
from torch.autograd.graph import Node

_LINEAR = """
    Add Sub Rsub Neg Sum Mean Nansum Cumsum View Reshape ReshapeAlias UnsafeView Permute Transpose T Swapaxes
    Expand Clone Contiguous Cat Stack Split SplitWithSizes UnsafeSplit Chunk Unbind Slice Select Index
    IndexSelect Gather TakeAlongDim Narrow Squeeze Unsqueeze Flatten Unflatten ConstantPadNd ReflectionPad1D
    ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D ReplicationPad3D PixelShuffle
    PixelUnshuffle AvgPool1D AvgPool2D AvgPool3D AdaptiveAvgPool1D AdaptiveAvgPool2D AdaptiveAvgPool3D
    MkldnnAdaptiveAvgPool2D UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleNearestExact1D
    UpsampleNearestExact2D UpsampleLinear1D UpsampleBilinear2D UpsampleBicubic2D UpsampleTrilinear3D Repeat
    RepeatInterleave Roll Flip ToCopy Alias Copy AsStrided MaskedFill MaskedScatter MaskedSelect Where Im2Col
    Col2Im Diagonal Tril Triu Unfold Embedding IndexAdd IndexCopy Scatter ScatterAdd SliceScatter SelectScatter
    Trace FusedDropout NativeDropout
""".split()
_PIECEWISE_LINEAR = """
    Relu LeakyRelu RreluWithNoise Threshold Hardtanh Hardsigmoid Hardshrink Softshrink Abs MaxPool2DWithIndices
    MaxPool3DWithIndices AdaptiveMaxPool2D AdaptiveMaxPool3D Max Min Amax Amin Maximum Minimum Clamp ClampMin
    ClampMax Sort Topk Kthvalue Median Floor Ceil Round Sign Trunc
""".split()
_FLAT = frozenset(_LINEAR) | frozenset(_PIECEWISE_LINEAR)

# Linear in each factor alone; curved as soon as two factors depend on the layer. Positions of the factors.
_PRODUCTS = {
    "Mul": (0, 1),
    "Mm": (0, 1),
    "Bmm": (0, 1),
    "Mv": (0, 1),
    "Dot": (0, 1),
    "Addmm": (1, 2),
    "Addbmm": (1, 2),
    "Baddbmm": (1, 2),
    "Addcmul": (1, 2),
    "Linear": (0, 1),
    "Convolution": (0, 1),
    "MkldnnConvolution": (0, 1),
    "PreluKernel": (0, 1),
}
# Linear in all else but the argument at this position: a denominator, the places to sample at, the weight of a blend.
_CURVED_IN = {"Div": 1, "GridSampler2D": 1, "GridSampler3D": 1, "Lerp": 2}


def find_curved_downstream(outputs: Sequence[Tensor], made_by: Mapping[str, Node | None]) -> dict[str, str]:
    """Find the layers with a curved operation between them and an output.

    Args:
        outputs: the network's outputs, with their autograd graph.
        made_by: the autograd node that made each layer's activation, by the layer's name.

    Returns:
        for each layer with a curved operation between it and an output, the name of one (``"Gelu"``).
    """
    behind: dict[Node, str] = {}
    for node in _sort_consumers_first([t.grad_fn for t in outputs if t.grad_fn is not None]):
        curved = _name_operation(node) if is_curved(node) else behind.get(node)
        for source in _find_sources(node):
            if curved is not None:
                behind.setdefault(source, curved)
    return {name: behind[node] for name, node in made_by.items() if node is not None and node in behind}


def _name_operation(node: Node) -> str:
    return re.sub(r"Backwards?\d*$", "", node.name().removeprefix("torch::autograd::"))


def is_curved(node: Node) -> bool:
    """Return whether an operation is not piecewise linear in its inputs.

    Inputs without a gradient do not count.
    """
    name = _name_operation(node)
    if name in _PRODUCTS:
        return sum(_depends_on(node, position) for position in _PRODUCTS[name]) > 1
    if name in _CURVED_IN:
        return _depends_on(node, _CURVED_IN[name])
    if name.endswith("BatchNorm"):  # linear on running statistics, curved on the batch's own (instance norm too)
        return bool(getattr(node, "_saved_training", True))
    return name not in _FLAT


def _depends_on(node: Node, position: int) -> bool:
    functions = node.next_functions
    return position < len(functions) and functions[position][0] is not None


def _find_sources(node: Node) -> Iterator[Node]:
    return (source for source, _ in node.next_functions if source is not None)


def _sort_consumers_first(starts: Sequence[Node]) -> list[Node]:
    """Return all nodes that ``starts`` depend on, each after everything that uses it."""
    finished: list[Node] = []
    seen: set[Node] = set()
    for start in starts:
        if start in seen:
            continue
        seen.add(start)
        path = [(start, _find_sources(start))]
        while path:
            node, rest = path[-1]
            source = next((s for s in rest if s not in seen), None)
            if source is None:
                finished.append(node)
                path.pop()
            else:
                seen.add(source)
                path.append((source, _find_sources(source)))
    return finished[::-1]
