"""Make one MQBench fake-quantizer of a policy's setting, or read one back."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hessrank.errors import nearest_first
from hessrank.quant.policy import Setting
from hessrank.quant.policy.vocabulary import MQBENCH_METHODS, MQBENCH_OBSERVERS
from hessrank.quant.prepare.mqbench.library import Library, MQBenchError
from hessrank.quant.scheme import Scheme

FAKE_QUANTIZERS = {ours: theirs for theirs, ours in MQBENCH_METHODS.items()}
WEIGHT_OBSERVERS = {
    "minmax": "MinMaxObserver",
    "moving-average": "EMAMinMaxObserver",
    "percentile": "EMAQuantileObserver",
    "mse": "MSEObserver",
    "mean-magnitude": "LSQObserver",
}
ACTIVATION_OBSERVERS = WEIGHT_OBSERVERS | {"mse": "EMAMSEObserver"}
_PER_TENSOR_ONLY = ("pact", "percentile")


def make_fake_quantizer(library: Library, setting: Setting, where: str, *, weight: bool, axis: int) -> nn.Module:
    """Build the fake-quantizer, with its observer, that ``setting`` describes.

    It is built anew rather than changed, since MQBench keeps a range in five attributes and two modules.

    Args:
        library: MQBench.
        setting: scheme, method and observer.
        where: the tensor's name, for error messages.
        weight: whether the tensor is a weight.
        axis: the channel axis, for a scheme with a scale for each channel.

    Raises:
        MQBenchError: MQBench has no such method or observer, or not for a scale for each channel.
    """
    observers = WEIGHT_OBSERVERS if weight else ACTIVATION_OBSERVERS
    made_of = _known(FAKE_QUANTIZERS, setting.method, "method", where)
    observer = _known(observers, setting.observer, "observer", where)
    scheme = setting.scheme
    if scheme.per_channel and (
        wrong := [name for name in _PER_TENSOR_ONLY if name in (setting.method, setting.observer)]
    ):
        raise MQBenchError(f"{where}: MQBench has {wrong[0]!r} for per_tensor schemes only, not for {scheme.word}")
    arguments: dict[str, Any] = library.scheme(
        symmetry=scheme.symmetric,
        per_channel=scheme.per_channel,
        pot_scale=scheme.pot_scale,
        bit=scheme.bits,
        symmetric_range=True,  # -127 … 127, as ours
    ).to_observer_params()
    if scheme.per_channel:
        arguments["ch_axis"] = axis
    made = library.fake_quantizers[made_of](observer=library.observers[observer], **arguments)
    assert isinstance(made, nn.Module)
    return made


def _known(names: dict[str, str], name: str, what: str, where: str) -> str:
    if name not in names:
        choice = ", ".join(nearest_first(name, names))
        raise MQBenchError(f"{where}: MQBench has no {what} {name!r}; it has {choice}; or use backend='hessrank'")
    return names[name]


def read_back(fake_quantizer: Any) -> dict[str, Any]:
    """Return what a fake-quantizer works with.

    Its bits, scheme, observer, method and largest scale.

    Its own ``bitwidth`` is not asked: it says 7 for −127 … 127.
    """
    bits = (fake_quantizer.quant_max - fake_quantizer.quant_min).bit_length()
    symmetric = fake_quantizer.qscheme in (torch.per_tensor_symmetric, torch.per_channel_symmetric)
    return {
        "bits": bits,
        "scheme": Scheme(bits, fake_quantizer.is_per_channel, symmetric).word,
        "observer": MQBENCH_OBSERVERS[type(fake_quantizer.activation_post_process).__name__],
        "method": MQBENCH_METHODS[type(fake_quantizer).__name__],
        "scale": float(fake_quantizer.scale.detach().max()),
    }
