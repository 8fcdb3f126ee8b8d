"""Explain a policy's words.

Names of methods and observers, ours and MQBench's, and keys of other files.

MQBench's observers without a counterpart are read as the nearest one:

* ``LSQObserver`` starts the step at 2·E|x|/√quant_max (and has the zero point of the last batch's range):
  ``mean-magnitude``.
* ``ClipStdObserver`` takes mean ± 2.6 standard deviations, *or the smallest and largest value if they are
  further out*, so it never clips: ``minmax``.
* ``MSEObserver`` and ``EMAMSEObserver`` differ in the average over batches only: ``mse``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hessrank.errors import OptionError
from hessrank.plugins import Registry
from hessrank.quant.policy.errors import no_such
from hessrank.quant.registries import OBSERVERS, POLICY_HOLDERS, QUANTIZERS

MQBENCH_METHODS = {
    "FixedFakeQuantize": "fixed",
    "LearnableFakeQuantize": "lsq",
    "DSQFakeQuantize": "dsq",
    "PACTFakeQuantize": "pact",
    "DoReFaFakeQuantize": "dorefa",
}
MQBENCH_OBSERVERS = {
    "MinMaxObserver": "minmax",
    "EMAMinMaxObserver": "moving-average",
    "EMAQuantileObserver": "percentile",
    "QuantileMovingAverageObserver": "percentile",
    "MSEObserver": "mse",
    "EMAMSEObserver": "mse",
    "LSQObserver": "mean-magnitude",
    "ClipStdObserver": "minmax",
}
ONLY_MQBENCH = frozenset({
    "NNIEFakeQuantize", "TqtFakeQuantize", "AdaRoundFakeQuantize", "QDropFakeQuantize",
    "MinMaxFloorObserver", "PoTModeObserver",
    "w_fakeq_params", "a_fakeq_params", "w_observer_extra_args", "a_observer_extra_args", "symmetric_range",
    "additional_function_type", "additional_module_type", "additional_node_name", "exclude_function_type",
    "academic_mode", "concrete_args", "extra_fuse_dict", "leaf_module", "preserve_attr",
})  # fmt: skip


def method_name(text: object) -> str:
    """Return our name of a fake-quantization method.

    ``LearnableFakeQuantize`` is ``lsq``.

    A name with a colon is that of a plug-in, ``pkg.module:attr``, and is not looked up here.

    Raises:
        OptionError: there is no such method, or only MQBench has it.
    """
    return _ours("method", text, QUANTIZERS, MQBENCH_METHODS)


def observer_name(text: object) -> str:
    """Return our name of an observer.

    ``EMAMinMaxObserver`` is ``moving-average``; else as ``method_name``.

    Raises:
        OptionError: there is no such observer, or only MQBench has it.
    """
    return _ours("observer", text, OBSERVERS, MQBENCH_OBSERVERS)


def holder_keys() -> list[str]:
    """Return the keys of the files that may hold a policy.

    A training's run file may.
    """
    return [key for name in POLICY_HOLDERS for key in POLICY_HOLDERS.resolve(name).model_fields]


def only_mqbench(name: str, instead: str) -> str:
    """Return the message for a name that MQBench has and hessrank has not."""
    return f"only MQBench has {name!r}: {instead}"


def _ours(what: str, text: object, ours: Registry[Any], theirs: Mapping[str, str]) -> str:
    name = str(text)
    if name in ours or (isinstance(text, str) and ":" in name.strip(":")):
        return name
    if name in theirs:
        return theirs[name]
    if name in ONLY_MQBENCH:
        raise OptionError(only_mqbench(name, f"{what}s here are {', '.join(ours)}"))
    raise OptionError(f"{no_such(what, name, [*ours, *theirs])}; {what}s are {', '.join(ours)}")
