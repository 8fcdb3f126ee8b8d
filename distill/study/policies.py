"""The policies of a study: of strategies, of files, at the BOPs of another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hessrank.analysis.result.ranking import Ranking
from hessrank.distill.study.file import OwnKeys, Study
from hessrank.errors import HessrankError
from hessrank.quant.bit_choice.allocation.policy_cost import PolicyCost
from hessrank.quant.bit_choice.make_policy import DEFAULT_COEFFICIENT, make_policy
from hessrank.quant.bit_choice.strategies import Problem, choose_hints
from hessrank.quant.bit_choice.summary import summarize
from hessrank.quant.policy import Policy
from hessrank.quant.policy.positions import FilePositions
from hessrank.quant.policy.validation import refuse_unknown_keys


class Policies:
    """Makes a study's policies when they are asked for."""

    def __init__(self, study: Study, ranking: Ranking) -> None:
        """Make policies of ``study`` for the network of ``ranking``."""
        self._study, self._ranking = study, ranking
        self._made: dict[str, Policy] = {}
        self._asked: list[str] = []

    def __getitem__(self, name: str) -> Policy:
        if name not in self._made:
            if name in self._asked:
                raise self._error(f"bops_of goes round in a circle: {' → '.join([*self._asked, name])}", name)
            self._asked.append(name)
            self._made[name] = self._make(name)
            self._asked.pop()
        return self._made[name]

    def costs(self, policy: Policy) -> PolicyCost:
        """Return what a policy costs: BOPs of one sample, size of the exported file."""
        return summarize(policy, self._ranking).costs

    def with_hints(self, policy: Policy, own: OwnKeys) -> Policy:
        """Return the policy with an experiment's hint layers and coefficients."""
        if own.distill is None:
            coefficients = policy.distill_coeff
            if own.coefficient is not None:
                coefficients = (own.coefficient,) * len(policy.distill_config)
            return policy.model_copy(update={"distill_coeff": coefficients})
        hints = tuple(choose_hints(Problem.of(self._ranking), own.distill, own.distill_count))
        coefficient = DEFAULT_COEFFICIENT if own.coefficient is None else own.coefficient
        lists = {"output_layer_list": hints, "distill_config": hints, "distill_coeff": (coefficient,) * len(hints)}
        return policy.model_copy(update=lists)

    def _make(self, name: str) -> Policy:
        keys = dict(self._study.keys.policies[name])
        if "bops_of" in keys:
            other = keys.pop("bops_of")
            if other not in self._study.keys.policies:
                raise self._error(f"bops_of: no policy named {other!r} in this study", name, "bops_of")
            keys["budget_bops"] = self.costs(self[other]).bops
        try:
            if "file" in keys:
                return self._read_file(keys)
            options = {"distill": "none"} | {key: value for key, value in keys.items() if value is not None}
            if "bits" in options:
                options["bits"] = tuple(options["bits"])
            return make_policy(self._ranking, **options)
        except HessrankError as error:
            raise self._error(str(error), name) from error

    def _read_file(self, keys: Mapping[str, Any]) -> Policy:
        """Read a policy; ``base_bits`` are for what it does not name, instead of its own defaults."""
        refuse_unknown_keys(keys, ("file", "base_bits"), FilePositions())
        path = self._study.path.parent / Path(keys["file"]).expanduser()
        policy = Policy.read(path, plugins=self._study.plugins)
        if keys.get("base_bits") is None:
            return policy
        values = policy.model_dump()
        for scheme in ("w_qscheme", "a_qscheme"):
            values["extra_qconfig_dict"][scheme]["bit"] = keys["base_bits"]
        return Policy.of(values).with_plugins_of(policy)

    def _error(self, problem: str, name: str, *path: str) -> HessrankError:
        places = self._study.places
        return places.error(problem, places.value("policies", name, *path))
