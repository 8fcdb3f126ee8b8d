"""A run file that loads a trained checkpoint: what the file leaves out, the checkpoint knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hessrank.distill.run_file import RunFile
from hessrank.distill.training.outputs.load_trained import holds_trained, peek, policy_of, read_trained


def with_checkpoint_policy(run: RunFile) -> tuple[RunFile, tuple[str, ...]]:
    """Return a run file with the policy of the trained checkpoint that it loads.

    So are the network's arguments.

    What the file says itself counts. A run that only judges may name the checkpoint as ``load_model`` too.

    Returns:
        the run file, and what to say of it.

    Raises:
        LoadError: the checkpoint was written by a newer hessrank.
        PolicyError: its policy names code that the run file's ``plugins`` do not.
    """
    keys = run.keys
    if keys.test and keys.quant and keys.load_quant_model is None and holds_trained(_peek(run, keys.load_model)):
        keys = keys.model_copy(update={"load_quant_model": keys.load_model, "load_model": None})
    path = run.beside(keys.load_quant_model)
    if path is None or not keys.quant or not holds_trained(_peek(run, keys.load_quant_model)):
        return run, ()
    facts = read_trained(path)[1]
    if keys.arch_args is None and facts["arch_args"]:
        keys = keys.model_copy(update={"arch_args": dict(facts["arch_args"])})
    if run.policy.model_fields_set:
        return replace(run, keys=keys), ()
    return replace(run, keys=keys, policy=policy_of(facts, path, run.plugins)), (f"the policy is that of {path}",)


def _peek(run: RunFile, name: str | None) -> Any:
    path = run.beside(name)
    return None if path is None else peek(path)
