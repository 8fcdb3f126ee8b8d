"""What a layer is for, by its kind."""

import pytest

from hessrank.drawing.layer_families import FAMILY_COLORS, layer_family

KINDS = {
    "input": "input",
    "convolution": "Conv1d Conv2d ConvTranspose3d conv2d conv_transpose1d Conv1D",
    "matrix product": "Linear linear Bilinear matmul bmm einsum Embedding",
    "norm": "BatchNorm2d batch_norm LayerNorm layer_norm GroupNorm InstanceNorm3d RMSNorm LlamaRMSNorm",
    "pooling, reshaping": "MaxPool2d max_pool2d AdaptiveAvgPool1d adaptive_avg_pool2d flatten PixelShuffle mean",
    "activation": "ReLU relu_ LeakyReLU leaky_relu GELU silu Softmax softmax MultiheadAttention GELUActivation",
    "sum, product, concatenation": "add iadd mul cat stack sub truediv",
    "other": "LSTM MyGate Dropout",
}


@pytest.mark.parametrize("family", KINDS)
def test_modules_and_functions_of_a_family(family: str) -> None:
    assert {kind: layer_family(kind) for kind in KINDS[family].split()} == dict.fromkeys(
        KINDS[family].split(), family
    )


def test_every_family_has_a_color_of_its_own() -> None:
    assert set(KINDS) == set(FAMILY_COLORS)
    assert len(set(FAMILY_COLORS.values())) == len(FAMILY_COLORS)
