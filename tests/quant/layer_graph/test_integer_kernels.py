"""What is computed in one go, on graphs written by hand."""

from __future__ import annotations

from helpers.hand_graphs import RESIDUAL, U_NET

from hessrank.quant.layer_graph.integer_kernels import IntegerKernels
from hessrank.quant.layer_graph.quantizer_placement import place_quantizers


def test_a_kernel_is_a_convolution_with_what_is_fused_to_it() -> None:
    kernels = IntegerKernels.of(RESIDUAL, place_quantizers(RESIDUAL))
    assert {name: kernel.layers for name, kernel in kernels.by_name.items()} == {
        "x": ("x",),
        "relu": ("conv1", "bn1", "relu"),
        "bn2": ("conv2", "bn2"),
        "relu_dup1": ("add", "relu_dup1"),
        "avg": ("avg",),
        "fc": ("fc",),
    }
    assert kernels.by_name["relu"].weight == "conv1.weight"
    assert kernels.by_name["relu_dup1"].sources == ("bn2", "relu")
    assert kernels.readers["relu"] == ("bn2", "relu_dup1")


def test_reshuffles_and_concatenations_are_looked_through() -> None:
    kernels = IntegerKernels.of(U_NET, place_quantizers(U_NET))
    assert kernels.by_name["relu2"].sources == ("relu1",)  # through the pooling
    assert kernels.by_name["out"].sources == ("up", "relu1")  # through the concatenation
    assert kernels.holding("conv2") == "relu2"


def test_what_stays_in_float_has_neither_weight_nor_grid() -> None:
    kernels = IntegerKernels.of(U_NET, place_quantizers(U_NET, excluded={"conv2", "relu2"}))
    assert (kernels.by_name["relu2"].weight, kernels.by_name["relu2"].grid) == (None, None)
