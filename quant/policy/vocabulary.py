"""Names of methods and observers, ours and MQBench's for the same thing.

MQBench's observers without a counterpart are read as the nearest one:

* ``LSQObserver`` starts the step at 2·E|x|/√quant_max (and has the zero point of the last batch's range):
  ``mean-magnitude``.
* ``ClipStdObserver`` takes mean ± 2.6 standard deviations, *or the smallest and largest value if they are
  further out*, so it never clips: ``minmax``.
* ``MSEObserver`` and ``EMAMSEObserver`` differ in the average over batches only: ``mse``.
"""

from __future__ import annotations

from collections.abc import Mapping

from hessrank.errors import OptionError
from hessrank.quant.policy.errors import no_such

RUN_KEYS = tuple(
    "quant test onnx quant_teacher gpu_id batch_size debug pdb_debug load_model load_quant_model load_teacher_model "
    "config_file_path task task_args data arch arch_args teacher_arch_args teacher_policy plugins trust_pickle out "
    "epochs weights_key teacher_weights_key ignore_keys "
    "learning_rate quantizer_learning_rate optimizer weight_decay schedule clip_gradients freeze_bn "
    "calibration_samples seed distill_loss distill_temperature distill_warmup task_coeff devices num_nodes precision "
    "workers data_timeout detailed_epochs log_every pictures threads".split()
)
"""Keys of a training's run file, which may hold a policy: they are let stand beside it."""

METHODS = ("fixed", "lsq", "lsq+", "dsq", "pact", "dorefa")
OBSERVERS = ("minmax", "moving-average", "percentile", "mse", "mean-magnitude")

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
    """Return our name of a fake-quantization method (``LearnableFakeQuantize`` is ``lsq``).

    A name with a colon is that of a plug-in, ``pkg.module:attr``, and is not looked up here.

    Raises:
        OptionError: there is no such method, or only MQBench has it.
    """
    return _ours("method", text, METHODS, MQBENCH_METHODS)


def observer_name(text: object) -> str:
    """Return our name of an observer (``EMAMinMaxObserver`` is ``moving-average``); else as ``method_name``.

    Raises:
        OptionError: there is no such observer, or only MQBench has it.
    """
    return _ours("observer", text, OBSERVERS, MQBENCH_OBSERVERS)


def only_mqbench(name: str, instead: str) -> str:
    """Return the message for a name that MQBench has and hessrank has not."""
    return f"only MQBench has {name!r}: {instead}"


def _ours(what: str, text: object, ours: tuple[str, ...], theirs: Mapping[str, str]) -> str:
    name = str(text)
    if name in ours or (isinstance(text, str) and ":" in name.strip(":")):
        return name
    if name in theirs:
        return theirs[name]
    if name in ONLY_MQBENCH:
        raise OptionError(only_mqbench(name, f"{what}s here are {', '.join(ours)}"))
    raise OptionError(f"{no_such(what, name, [*ours, *theirs])}; {what}s are {', '.join(ours)}")
