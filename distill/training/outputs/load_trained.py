"""A network out of a checkpoint that a training wrote."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from hessrank.data.batch import Batch
from hessrank.distill.training.outputs.checkpoint_contents import FACTS, TrainingCheckpoint
from hessrank.errors import LoadError, OptionError
from hessrank.files.paths import readable_file
from hessrank.models.architecture import Architecture, build, import_ours
from hessrank.models.match_weights import load_weights
from hessrank.models.model_checkpoint import CHECKPOINT, CHECKPOINT_VERSION
from hessrank.models.pickles import read_pickle
from hessrank.models.size_check import limit_size
from hessrank.plugins import from_here
from hessrank.quant.policy import Policy
from hessrank.quant.policy.own_code import NOTHING, Plugins
from hessrank.quant.policy.read import read_text
from hessrank.quant.prepare import QuantizedModel, prepare
from hessrank.quant.prepare.model import META
from hessrank.text import printable
from hessrank.validation import validate

if TYPE_CHECKING:
    from hessrank.distill.tasks.base import Task

VERSION = 1
"""Of what lies under the key of hessrank's own facts; a reader refuses a higher one."""


def peek(path: str | Path) -> Any:
    """Return what ``torch.save`` put into a file; None if that cannot be read."""
    try:
        return read_pickle(readable_file(path, error=LoadError), trust_pickle=False)
    except LoadError:
        return None


def is_trained(path: str | Path) -> bool:
    """Return whether a file is a training's checkpoint of a quantized network."""
    return holds_trained(peek(path))


def holds_trained(held: object) -> bool:
    """Return whether what a file holds is such a checkpoint."""
    facts = held.get(FACTS) if isinstance(held, Mapping) else None
    return isinstance(facts, Mapping) and facts.get("policy") is not None


def load_trained(
    path: str | Path,
    *,
    arch: Architecture | None = None,
    arch_args: Mapping[str, Any] | None = None,
    task: str | type[Task] | Task | None = None,
    plugins: Iterable[str] | Plugins = NOTHING,
) -> QuantizedModel:
    """Return the quantized network of a training's checkpoint, in its trained state.

    Code is imported only if the user names it here, or if it is a network of hessrank's own.

    Args:
        path: ``best-epoch….ckpt`` or ``last-epoch….ckpt``.
        arch: what builds the float network; needed, if not a task, unless it is one of hessrank's own.
        arch_args: its arguments, if not those in the checkpoint.
        task: the task whose network it is, as the run file had it (``file.py:Class``), or the class; it is made with
            the run's ``data`` and ``task_args``. Or a task that is made already.
        plugins: methods and observers of your own that its policy may name, ``file.py:Class``.

    Returns:
        the network in evaluation mode, on the CPU; what a user should know of it is among its ``warnings``.

    Raises:
        LoadError: no such file, no checkpoint of a quantized training, a network whose code the user has to name
            (the message says how), or a state that does not fit.
        PolicyError: its policy names a method or an observer that is not hessrank's, and not among ``plugins``.
        OptionError: both ``arch`` and ``task`` are given.
    """
    held, facts = read_trained(path)
    if facts["policy"] is None:
        raise LoadError(f"{path}: a network trained in float: load it with hessrank.load_model")
    if arch is not None and task is not None:
        raise OptionError("give what builds the network (arch), or its task, not both")
    policy = policy_of(facts, path, plugins)
    arguments = facts["arch_args"] if arch_args is None else dict(arch_args)
    with limit_size(Path(path).expanduser()):
        if task is not None:
            name = task if isinstance(task, str) else getattr(task, "__name__", type(task).__name__)
            network = build(_make_task(facts, task).model, arguments, source=f"the network of task {name}")
        else:
            network = build(_own_network(path, facts) if arch is None else arch, arguments)
    example = example_of(facts)
    prepared = prepare(
        network,
        policy,
        dict(example.kwargs) or tuple(example.args),
        num_samples=1,
        freeze_bn=bool(facts["settings"]["freeze_bn"]),
    )
    load_weights(prepared, held["state_dict"], source=str(path))
    prepared.set_quantizing(True)
    if facts["epoch"] == 0:
        prepared.meta[META]["warnings"].append(f"{path}: {'; '.join(untrained_notes(facts['monitor']))}")
    return prepared.eval()


def untrained_notes(monitor: str) -> tuple[str, ...]:
    """Return what to say of a best state that is the one before the first step."""
    return (
        f"no epoch was better than before the first step, by {monitor}",
        "the best state is therefore the untrained network, as it was before the first step",
    )


def _own_network(path: str | Path, facts: Mapping[str, Any]) -> Callable[..., nn.Module]:
    """Return the class of hessrank that a checkpoint names; of others, say what the user has to name.

    Raises:
        LoadError: it is none of hessrank's; the remedy works in the folder that the user is in.
    """
    asked = str(facts["identity"].get("arch") or facts["arch"])
    if asked.startswith("hessrank."):
        return import_ours(asked, source=str(path))
    task, near = str(facts["identity"].get("task")), Path(path).parent
    if facts["identity"].get("arch") is None and ":" in task:
        who, option, name = f"the task {printable(task)}", "task", from_here(task, near)
    elif asked:
        who, option, name = f"{printable(asked)}, which is not part of hessrank", "arch", from_here(asked, near)
    else:
        raise LoadError(f"{path}: the checkpoint does not say what builds its network: add --arch file.py:factory")
    raise LoadError(
        f"{path}: its network is built by {who}; no code is imported on a file's word: if you trust it, add "
        f"--{option} {shlex.quote(printable(name))} ({option}= in Python)"
    )


def _make_task(facts: Mapping[str, Any], task: str | type[Task] | Task) -> Task:
    """Return the task that the user names, made with what the training's run file gave it."""
    if not isinstance(task, str | type):
        return task
    from hessrank.distill.tasks.find import make_task  # noqa: PLC0415 - torchmetrics takes a second

    ran = facts["identity"]
    folder = _run_folder(task, ran.get("task", "")) if isinstance(task, str) else Path()
    return make_task(task, ran.get("data"), folder, facts["settings"]["seed"], ran.get("task_args", {}))


def _run_folder(named: str, ran: str) -> Path:
    """Return the folder of the run file, where relative data start, from the task's name now and then."""
    here, there = (Path(reference.rpartition(":")[0]) for reference in (named, ran))
    if here.suffix != ".py":
        return Path()
    is_same = not there.is_absolute() and here.resolve().parts[-len(there.parts) :] == there.parts
    return here.resolve().parents[len(there.parts) - 1] if is_same else here.parent


def read_trained(path: str | Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return what a training's checkpoint holds, and what it says of its network.

    Raises:
        LoadError: no such file, none that a training wrote, or a part of it is missing or not what it must be.
    """
    held = read_pickle(readable_file(path, error=LoadError), trust_pickle=False)
    if not isinstance(held, Mapping) or not isinstance(held.get(FACTS), Mapping):
        raise LoadError(f"{path}: no checkpoint of a hessrank training: give a best-epoch….ckpt or last-epoch….ckpt")
    facts: Mapping[str, Any] = held[FACTS]
    version = facts.get("version")
    if isinstance(version, int) and version > VERSION:
        raise LoadError(f"{path}: written by a newer hessrank; upgrade hessrank")
    validate(TrainingCheckpoint, held, source=str(path), error=LoadError)
    return held, facts


def policy_of(facts: Mapping[str, Any], path: str | Path, plugins: Iterable[str] | Plugins) -> Policy:
    """Return the policy that a checkpoint of a quantized training carries.

    Args:
        facts: what the checkpoint says of its network.
        path: the checkpoint, for error messages.
        plugins: the code that the policy may name.

    Raises:
        PolicyError: it is none, or names other code.
    """
    return Policy.part_of(read_text(facts["policy"], str(path)), plugins=plugins)


def example_of(facts: Mapping[str, Any]) -> Batch:
    """Return the sample that a checkpoint carries, to trace the network with."""
    example = facts["example"]
    return Batch(tuple(example["args"]), dict(example["kwargs"]))


def knows_network(facts: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint says what builds its network, maybe by its task."""
    return bool(facts["arch"]) or "task" in facts["identity"]


def as_float_checkpoint(facts: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries by which ``hessrank.load_model`` reads a checkpoint."""
    example = example_of(facts)
    inputs = example.args[0] if len(example.args) == 1 and isinstance(example.args[0], Tensor) else None
    shape = None if inputs is None else list(inputs.shape[1:])
    parts = {"arch": facts["arch"], "arch_args": dict(facts["arch_args"]), "input_shape": shape, "inputs": inputs}
    return {CHECKPOINT: CHECKPOINT_VERSION, **parts, "metadata": {}, "model": dict(state)}
