"""Families of layers by their kind, and their colors in pictures."""

from __future__ import annotations

import re

from torch import nn

# A color each, whatever else is in the picture. Their lightness (L* of 0, 19, 33, 45, 57, 68, 79, 91) tells them
# apart in gray and to color-blind eyes.
FAMILY_COLORS = {
    "input": "#000000",
    "convolution": "#0B2A6B",
    "matrix product": "#8F2D00",
    "norm": "#8C4FB0",
    "pooling, reshaping": "#119C7C",
    "activation": "#F0902A",
    "sum, product, concatenation": "#8CCBF2",
    "other": "#E4E4E4",
}

_OF_TORCH_MODULE = {
    "conv": "convolution",
    "linear": "matrix product",
    "sparse": "matrix product",  # an embedding is a product with a one-hot matrix
    "batchnorm": "norm",
    "instancenorm": "norm",
    "normalization": "norm",
    "activation": "activation",
    "pooling": "pooling, reshaping",
    "padding": "pooling, reshaping",
    "pixelshuffle": "pooling, reshaping",
    "upsampling": "pooling, reshaping",
    "flatten": "pooling, reshaping",
    "fold": "pooling, reshaping",
}
_OTHER_WORDS = {
    "input": "input",
    "matrix product": "matmul mm bmm addmm baddbmm einsum tensordot dot mv inner outer imatmul",
    "activation": "clamp clip clampmin clampmax exp sin cos sqrt erf abs scaleddotproductattention",
    "pooling, reshaping": (
        "mean sum amax amin max min interpolate upsample pad reshape view permute transpose squeeze unsqueeze "
        "expand repeat getitem chunk split contiguous to select movedim roll unbind identity"
    ),
    "sum, product, concatenation": (
        "add sub rsub mul div truediv multiply divide subtract addcmul addcdiv neg lerp maximum minimum where "
        "iadd isub imul itruediv cat concat concatenate stack hstack vstack dstack"
    ),
}


def _strip_kind(kind: str) -> str:
    r"""Return the stem of a layer's kind, equal for a module and its function.

    LeakyReLU and leaky_relu_ have one stem, and so have Conv2d and conv1d.
    """
    return re.sub(r"[123]d$", "", kind.lower().replace("_", ""))


_FAMILIES = {
    _strip_kind(name): family
    for name, value in vars(nn).items()
    if isinstance(value, type) and (family := _OF_TORCH_MODULE.get(value.__module__.rpartition(".")[2]))
} | {_strip_kind(word): family for family, words in _OTHER_WORDS.items() for word in words.split()}


def layer_family(kind: str) -> str:
    """Return the family of a kind of layer, a key of :data:`FAMILY_COLORS`.

    It is ``other`` for what torch does not have.

    Example:
        >>> layer_family("ConvTranspose2d"), layer_family("leaky_relu_"), layer_family("MyGate")
        ('convolution', 'activation', 'other')
    """
    bare = _strip_kind(kind)
    endings = (ending for ending in ("norm", "activation") if bare.endswith(ending))  # LlamaRMSNorm, GELUActivation
    return _FAMILIES.get(bare) or next(endings, "other")
