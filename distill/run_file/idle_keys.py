"""Keys of a run file that do nothing in its run."""

from __future__ import annotations

from hessrank.distill.run_file.read import RunFile


def describe_idle_keys(run: RunFile) -> tuple[str, ...]:
    """Return a sentence for every key of the file that does nothing in this run."""
    keys, hints = run.keys, run.policy.distill_config
    idle = {
        "teacher_arch_args": keys.load_teacher_model is None,
        "teacher_weights_key": keys.load_teacher_model is None,
        "weights_key": keys.load_model is None,
        "ignore_keys": keys.load_model is None and keys.load_teacher_model is None,
        **dict.fromkeys(("distill_loss", "distill_temperature", "distill_warmup"), not hints),
        "load_quant_model": not keys.quant,
        "onnx": not keys.quant,
        "load_teacher_model": not hints,
        "quant_teacher": not hints,
        "teacher_policy": not (keys.quant_teacher and hints),
    }
    return tuple(
        f"{name} does nothing: {_why_idle(name, bool(hints))}"
        for name, nothing in idle.items()
        if nothing and name in run.given and getattr(keys, name)
    )


def _why_idle(name: str, distills: bool) -> str:
    if name in ("load_quant_model", "onnx"):
        return "quant is false"
    if name in ("weights_key", "ignore_keys"):
        return "there is no load_model"
    of_teacher = name in ("teacher_arch_args", "teacher_weights_key")
    return "there is no load_teacher_model" if distills and of_teacher else "nothing is to be distilled"
