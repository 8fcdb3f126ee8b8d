"""A run file read: its keys, its policy, and where each stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hessrank.distill.run_file.keys import RunKeys
from hessrank.distill.run_file.settings import Settings
from hessrank.errors import DataError, HessrankError
from hessrank.quant.policy import Policy
from hessrank.quant.policy.errors import PolicyError
from hessrank.quant.policy.own_code import Plugins
from hessrank.quant.policy.positions import FilePositions
from hessrank.quant.policy.read import Document, read_document
from hessrank.quant.policy.validation import refuse_unknown_keys, validated

WRAPPER = "extra_prepare_dict"
"""MQBench's example configurations hold the policy's keys below this one."""
_NOT_OURS = ("quantize",)  # beside it: how MQBench's examples calibrate


@dataclass(frozen=True)
class RunFile:
    """What a run file says.

    Attributes:
        path: the file.
        keys: its keys and the defaults of those that it does not have.
        policy: bits and distillation lists, of the file and of ``config_file_path``.
        places: where everything stands.
        given: the keys at the root of the file that are not empty.
        trusted: whether the user himself says that pickles may run code; the file's word for it is not enough.
    """

    path: Path
    keys: RunKeys
    policy: Policy
    places: FilePositions
    given: frozenset[str]
    trusted: bool = False

    def beside(self, name: str | None) -> Path | None:
        """Return a path that the file names, taken from the file's folder; None for none."""
        return None if name is None else self.path.parent / Path(name).expanduser()

    def reference(self, name: str) -> str:
        """Return ``file.py:name`` as seen from the run file's folder; others as is."""
        place, _, attribute = name.rpartition(":")
        return f"{self.path.parent / place}:{attribute}" if place.endswith(".py") else name

    @property
    def plugins(self) -> Plugins:
        """The code of the user's own that other files may name."""
        return Plugins(tuple(map(self.reference, self.keys.plugins)), listed_in=self.path)

    def trusting(self, trust_pickle: bool) -> RunFile:
        """Return the same run, in which pickles may run code if the user says so.

        Raises:
            PolicyError: the file has ``trust_pickle: true``, and the user did not repeat it.
        """
        if self.keys.trust_pickle and not trust_pickle:
            raise self.error(
                "trust_pickle: a file alone cannot allow pickles to run code: if you trust the files that it loads, "
                "add --trust-pickle (trust_pickle=True in Python)",
                "trust_pickle",
            )
        return replace(self, trusted=trust_pickle)

    @property
    def settings(self) -> Settings:
        """The part of the file that says how to train."""
        return Settings.model_validate({name: getattr(self.keys, name) for name in Settings.model_fields})

    @property
    def student_policy(self) -> Policy | None:
        """The policy that the student is quantized by; None in float."""
        return self.policy if self.keys.quant else None

    @property
    def is_trial(self) -> bool:
        """Whether only a few batches are trained, in a folder of their own."""
        return self.keys.debug and not self.keys.test

    @property
    def out(self) -> Path:
        """The folder to write to."""
        return self.beside(self.keys.out) or self.path.parent / "runs" / self.path.stem

    def error(self, problem: str, *path: str | int) -> Exception:
        """Return the error of ``problem`` at the value that lies at ``path``."""
        return self.places.error(problem, self.places.value(*path))

    @contextmanager
    def locating(self, *keys: str) -> Iterator[None]:
        """Put the place of the last given one of ``keys`` before what goes wrong.

        Raises:
            PolicyError: in place of any other error of hessrank's, if the file gives one of ``keys``.
        """
        try:
            yield
        except PolicyError:
            raise
        except HessrankError as error:
            given = [key for key in keys if key in self.given]
            if not given:
                raise
            blamed = "data" if isinstance(error, DataError) and "data" in given else given[-1]
            raise self.error(str(error), blamed) from error


def read_run(path: str | Path) -> RunFile:
    """Read a run file, and the configuration that it names.

    Args:
        path: a YAML file of run keys and a policy's keys.

    Raises:
        PolicyError: one line with file, line and column: an unknown key and the nearest, a value that does not
            fit, lists of unequal length, a configuration that is not there.
    """
    return run_of(read_document(path), Path(path))


def run_of(document: Document, path: Path) -> RunFile:
    """Return the run file in a document that was read; else as :func:`read_run`."""
    data, places = document.data, document.places
    refuse_unknown_keys(data, [*RunKeys.model_fields, *Policy.model_fields], places)
    keys = validated(RunKeys, {key: value for key, value in data.items() if key in RunKeys.model_fields}, places)
    given = frozenset(key for key, value in data.items() if value is not None)
    run = RunFile(path, keys, Policy(), places, given)
    own = Document({key: data[key] for key in data if key in given & set(Policy.model_fields)}, places)
    if keys.config_file_path is not None:
        config = path.parent / Path(keys.config_file_path).expanduser()
        if not config.exists():
            raise places.error(f"config_file_path: there is no file {config}", places.value("config_file_path"))
        second = _read_configuration(config, run.plugins)
        filled = {key: value for key, value in second.data.items() if value is not None}
        own = Document({**filled, **own.data}, own.places.over(second.places))
    # the policy may name the file's ``plugins``, and what the file itself names
    defaults = data.get("extra_qconfig_dict")
    values = defaults.values() if isinstance(defaults, dict) else ()
    named = [run.reference(value) for value in values if isinstance(value, str) and ":" in value]
    return replace(
        run, policy=Policy.part_of(own, plugins=run.plugins.and_those_of(Plugins(tuple(named))), beside=())
    )


def _read_configuration(path: Path, plugins: Plugins) -> Document:
    """Read the policy's keys of a second file, bare or as MQBench's example configurations have them.

    The second file is data: of the user's own code it may name ``plugins`` only.
    """
    document = read_document(path)
    inner: Any = document.data.get(WRAPPER)
    if isinstance(inner, dict):
        refuse_unknown_keys(document.data, [WRAPPER, *_NOT_OURS], document.places)
        document = Document(inner, document.places.below(WRAPPER))
    Policy.part_of(document, plugins=plugins, beside=())
    return document
