"""Tell what sort of layer a ranking's kind is.

The kind is the class of a module or the name of a function.
"""

from __future__ import annotations

from hessrank.network.layer_names import CONCATENATIONS, REARRANGEMENTS
from hessrank.quant.layer_graph.graph import Node


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Piecewise linear: an integer kernel applies them to its accumulator, before it requantizes.
FUSED_ACTIVATIONS = _words("""
    ReLU ReLU6 LeakyReLU PReLU Hardtanh Threshold
    relu relu_ relu6 leaky_relu leaky_relu_ prelu hardtanh hardtanh_ threshold threshold_ clamp clamp_ clip
    clamp_min clamp_min_
""")
FOLDED_NORMS = _words("BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm")
BATCH_NORMS = FOLDED_NORMS | {"batch_norm"}
ADDITIONS = _words("add add_ iadd sub sub_ isub")
# They move or select values, so their result lies on the grid of what they are given.
RESHUFFLES = REARRANGEMENTS | _words("""
    MaxPool1d MaxPool2d MaxPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d
    FractionalMaxPool2d FractionalMaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d
    PixelShuffle PixelUnshuffle ChannelShuffle Flatten Unflatten Unfold Identity
    Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout
    ZeroPad1d ZeroPad2d ZeroPad3d ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d
    ReplicationPad3d CircularPad1d CircularPad2d CircularPad3d UpsamplingNearest2d
    max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
    adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices
    fractional_max_pool2d fractional_max_pool3d fractional_max_pool2d_with_indices fractional_max_pool3d_with_indices
    max_unpool1d max_unpool2d max_unpool3d native_channel_shuffle upsample_nearest
    dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout feature_alpha_dropout
    max min amax amin sort topk kthvalue median cummax cummin
""")
# How a padding or an interpolation fills in when it only copies values, or adds the 0 that every grid holds. Where
# it adds -inf, a max pooling behind it keeps the rest.
COPYING_MODES = frozenset(
    ("constant 0", "constant -inf", "reflect", "replicate", "circular", "nearest", "nearest-exact")
)
# Infinite, or of infinite slope, where an operand is 0: a hand-written layer norm's √(variance + ε), which fewer bits
# round to 0.
SINGULAR = _words("""
    sqrt sqrt_ rsqrt rsqrt_ reciprocal reciprocal_ log log_ log2 log2_ log10 log10_ log1p log1p_ pow pow_ float_power
""")
DIVISIONS = _words("div div_ divide divide_ true_divide truediv itruediv")
KERNELS = _words("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear")


def is_join(node: Node) -> bool:
    """Return whether a layer lays tensors beside each other.

    That takes one grid for all of them.

    One of constants alone lays nothing beside each other that has a grid: it is a layer as any other.
    """
    return node.kind in CONCATENATIONS and bool(node.inputs)


def passes_grid_on(node: Node) -> bool:
    """Return whether a layer's values all lie on the grid of the one tensor it reads."""
    return len(node.inputs) == 1 and (node.kind in RESHUFFLES or node.mode in COPYING_MODES)


def is_addition(node: Node) -> bool:
    """Return whether a layer adds two activations.

    That takes as many bits on both sides.
    """
    return node.kind in ADDITIONS and len(node.inputs) == 2


def is_singular_in(node: Node, operand: str) -> bool:
    """Return whether a layer must not see an operand rounded to 0.

    It takes its root, its logarithm or a power of it, or divides by it.
    """
    divides = node.kind in DIVISIONS and len(node.inputs) == 2 and operand == node.inputs[1]
    return divides or node.kind in SINGULAR


def takes_activation_in(node: Node) -> bool:
    """Return whether a layer's kernel applies the activation behind it.

    Before it requantizes.
    """
    return node.weight is not None or is_addition(node) or node.kind in BATCH_NORMS | KERNELS
