"""The study file: what all experiments share, the policies, and what each experiment changes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hessrank.distill.run_file import RunFile, RunKeys, run_of
from hessrank.distill.run_file.keys import OwnCodes
from hessrank.distill.run_file.settings import Count, Seed
from hessrank.quant.policy import Policy
from hessrank.quant.policy.errors import MisfitError
from hessrank.quant.policy.fields import Bits, Coefficient, Keys
from hessrank.quant.policy.own_code import Plugins
from hessrank.quant.policy.positions import FilePositions
from hessrank.quant.policy.read import Document, read_document
from hessrank.quant.policy.validation import refuse_unknown_keys, validated
from hessrank.text import brief

Table = dict[str, Any]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
OWN = ("policy", "distill", "distill_count", "coefficient")
"""Keys of an experiment that a run file has not."""
_LONGEST = 200  # bytes of a folder's name, of the 255 that there may be
_NOT_IN_A_STUDY = ("debug", "test", "seed", "out", "onnx", "pdb_debug", "plugins")


class StudyKeys(Keys):
    """The keys of a study file."""

    base: Table = Field(default_factory=dict, description="keys of a run file that all experiments share")
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)] = Field(
        (0, 1, 2), description="every experiment is run once with each"
    )
    policies: dict[str, Table] = Field(
        default_factory=dict,
        description="by name: `strategy` and its options, or `file` and maybe `base_bits`; `bops_of` another policy "
        "is a budget",
    )
    experiments: Annotated[dict[str, Table], Field(min_length=1)] = Field(
        description="by name: `policy`, `distill` (head, middle, tail, penultimate, top-trace, none), "
        "`distill_count`, `coefficient`, and keys of a run file"
    )
    ranking: str | None = Field(None, description="a ranking of the float network; made if empty")
    ranking_samples: Count = Field(24, description="training samples to rank with")
    plugins: OwnCodes = ()
    out: str | None = Field(None, description="folder to write to; studies/ and the file's name if empty")


class StudyPolicyKeys(BaseModel):
    """A policy of a study: the keys that strategies share; which others one takes, it says itself."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    file: str | None = None
    strategy: str | None = None
    bops_of: str | None = None
    base_bits: Bits | None = None
    high_bits: Bits | None = None
    bits: Annotated[tuple[Bits, ...], Field(strict=False, min_length=1)] | None = None
    falloff: Number | None = None
    count: Count | None = None
    above: Number | None = None
    by: str | None = None
    budget_size_mib: Number | None = None
    budget_bops: Number | None = None
    budget_mean_bits: Number | None = None
    budget_latency: Number | None = None
    latency: str | None = None
    distill: str | None = None
    distill_count: Count | None = None
    distill_coeff: Coefficient | None = None
    weight_scheme: str | None = None
    activation_scheme: str | None = None
    method: str | None = None
    observer: str | None = None

    @model_validator(mode="after")
    def _has_no_ranking(self) -> StudyPolicyKeys:
        if "ranking" in (self.model_extra or {}):
            raise MisfitError("the ranking is the study's: write it at the top", "ranking", at_key=True)
        return self


class OwnKeys(Keys):
    """What an experiment says beside the keys of a run file."""

    policy: str | None = None
    distill: str | None = None
    distill_count: Count | None = None
    coefficient: Coefficient | None = None


@dataclass(frozen=True)
class Experiment:
    """One row of the table.

    Attributes:
        name: its name.
        run: what to run, with any seed.
        own: the policy by name, and the hint layers by strategy.
    """

    name: str
    run: RunFile
    own: OwnKeys

    def trusting(self, trust_pickle: bool) -> Experiment:
        """Return the same experiment with a run that trusts the files it loads, or not."""
        return replace(self, run=self.run.trusting(trust_pickle))


@dataclass(frozen=True)
class Study:
    """A study file that was read.

    Attributes:
        path: the file.
        keys: its keys.
        experiments: in the file's order.
        places: where everything stands.
    """

    path: Path
    keys: StudyKeys
    experiments: tuple[Experiment, ...]
    places: FilePositions

    @property
    def plugins(self) -> Plugins:
        """The code of the user's own that other files may name; it is the same for all experiments."""
        return self.experiments[0].run.plugins

    def trusting(self, trust_pickle: bool) -> Study:
        """Return the same study, in which pickles may run code if the user says so.

        Raises:
            PolicyError: the file has ``trust_pickle: true``, and the user did not repeat it.
        """
        return replace(self, experiments=tuple(one.trusting(trust_pickle) for one in self.experiments))

    @property
    def out(self) -> Path:
        """The folder to write to."""
        own = self.keys.out
        return self.path.parent / (Path("studies") / self.path.stem if own is None else Path(own).expanduser())


def read_study(path: str | Path) -> Study:
    """Read a study file, and check all of its experiments.

    Raises:
        PolicyError: one line with file, line and column: an unknown key and the nearest, a value that does not
            fit, an experiment whose policy is none of the study's.
    """
    path, document = Path(path), read_document(path)
    refuse_unknown_keys(document.data, StudyKeys.model_fields, document.places)
    keys = validated(StudyKeys, document.data, document.places)
    _refuse_foreign(keys.base, document.places.below("base"))
    for name, policy in keys.policies.items():
        validated(StudyPolicyKeys, policy, document.places.below("policies").below(name))
    experiments = tuple(_experiment(path, document, keys, name) for name in keys.experiments)
    folders: dict[str, str] = {}
    for name in keys.experiments:
        place = document.places.key("experiments", name)
        if not slug(name) or len(slug(name).encode()) > _LONGEST:
            problem = f"{brief(name)} names no folder: give the experiment a shorter name, of letters and digits"
            raise document.places.error(problem, place)
        other = folders.setdefault(slug(name).casefold(), name)
        if other != name:
            raise document.places.error(f"{name!r} and {other!r} would share a folder: rename one", place)
    return Study(path, keys, experiments, document.places)


def slug(name: str) -> str:
    """Return a name as one that a folder can have; empty if nothing is left of it."""
    return re.sub(r"[^\w.,=+-]+", "-", name).strip("-.")


_INSTEAD = {"seed": "seeds are the study's", "out": "out is the study's", "plugins": "plugins are the study's"}


def _refuse_foreign(given: Table, places: FilePositions) -> None:
    """Refuse keys of a run file that have no place in a study."""
    for key in _NOT_IN_A_STUDY:
        if key in given:
            problem = f"{key} has no place in a study: {_INSTEAD.get(key, 'remove it')}"
            raise places.error(problem, places.key(key))


def _experiment(path: Path, document: Document, keys: StudyKeys, name: str) -> Experiment:
    places = document.places.below("experiments").below(name)
    changed = keys.experiments[name]
    refuse_unknown_keys(changed, [*OWN, *RunKeys.model_fields, *Policy.model_fields], places)
    _refuse_foreign(changed, places)
    own = validated(OwnKeys, {key: changed[key] for key in OWN if key in changed}, places)
    if own.policy is not None and own.policy not in keys.policies:
        known = ", ".join(keys.policies) or "none"
        problem = f"no policy named {own.policy!r} in this study; there are {known}"
        raise places.error(problem, places.value("policy"))
    data = {
        "plugins": list(keys.plugins),
        **keys.base,
        **{key: value for key, value in changed.items() if key not in OWN},
    }
    merged = Document(data, places.over(document.places.below("base")))
    return Experiment(name, run_of(merged, path), own)
