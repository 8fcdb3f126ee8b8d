"""What sorts of layers there are, by the kind that a ranking gives: class of a module or name of a function."""

from __future__ import annotations

from hessrank.analysis.layers import CONCATENATIONS, REARRANGEMENTS
from hessrank.quant.graph import Node


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Piecewise linear: an integer kernel applies them to its accumulator, before it requantizes.
FUSED_ACTIVATIONS = _words("""
    ReLU ReLU6 LeakyReLU PReLU Hardtanh Threshold
    relu relu_ relu6 leaky_relu leaky_relu_ prelu hardtanh hardtanh_ threshold threshold_ clamp clamp_ clip
    clamp_min clamp_min_
""")
BATCH_NORMS = _words("BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm batch_norm")
ADDITIONS = _words("add add_ iadd sub sub_ isub")
# They move or select values, so their result lies on the grid of what they are given.
RESHUFFLES = REARRANGEMENTS | _words("""
    MaxPool1d MaxPool2d MaxPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d
    PixelShuffle PixelUnshuffle ChannelShuffle Flatten Unflatten Identity Dropout Dropout1d Dropout2d Dropout3d
    AlphaDropout ZeroPad1d ZeroPad2d ZeroPad3d ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d
    ReplicationPad2d ReplicationPad3d UpsamplingNearest2d
    max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    dropout dropout1d dropout2d dropout3d feature_dropout
    max min amax amin sort topk kthvalue median cummax cummin
""")
# Infinite, or of infinite slope, where an operand is 0: a hand-written layer norm's √(variance + ε), which fewer bits
# round to 0.
SINGULAR = _words("""
    sqrt sqrt_ rsqrt rsqrt_ reciprocal reciprocal_ log log_ log2 log2_ log10 log10_ log1p log1p_ pow pow_ float_power
""")
DIVISIONS = _words("div div_ divide divide_ true_divide truediv itruediv")
KERNELS = _words("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear")
MASKS = _words("masked_fill masked_fill_")


def is_join(node: Node) -> bool:
    """Return whether a layer lays tensors beside each other, which takes one grid for all of them."""
    return node.kind in CONCATENATIONS


def passes_grid_on(node: Node) -> bool:
    """Return whether a layer's values all lie on the grid of the one tensor it reads."""
    return node.kind in RESHUFFLES and len(node.inputs) == 1


def is_addition(node: Node) -> bool:
    """Return whether a layer adds two activations, which takes as many bits on both sides."""
    return node.kind in ADDITIONS and len(node.inputs) == 2


def is_singular_in(node: Node, operand: str) -> bool:
    """Return whether a layer takes the root, the logarithm or a power of an operand, or divides by it."""
    divides = node.kind in DIVISIONS and len(node.inputs) == 2 and operand == node.inputs[1]
    return divides or node.kind in SINGULAR


def takes_activation_in(node: Node) -> bool:
    """Return whether an integer kernel for this layer applies the activation behind it before it requantizes."""
    return node.weight is not None or is_addition(node) or node.kind in BATCH_NORMS | KERNELS
