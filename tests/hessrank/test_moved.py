"""Import paths of release 0.5 lead to the modules that have moved."""

import importlib
import subprocess
import sys
import warnings

import pytest

from hessrank.moved import MOVED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_place_is_the_new_module_and_says_so(old: str) -> None:
    sys.modules.pop(old, None)
    new = importlib.import_module(MOVED[old])
    parent, _, name = old.rpartition(".")
    scope = vars(importlib.import_module(MOVED.get(parent, parent)))
    before = {name: scope[name]} if name in scope else {}
    spec = new.__spec__
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert importlib.import_module(old) is new
    assert any(f"{old} is {MOVED[old]} now" in str(one.message) for one in told)
    assert new.__spec__ is spec
    sys.modules.pop(old)
    scope.pop(name)  # where importing has put it
    scope.update(before)


def test_no_new_place_is_an_old_one() -> None:
    assert not set(MOVED) & set(MOVED.values())


PUBLIC = """
from hessrank.analysis.rank import rank
from hessrank.analysis.ranking import Ranking
from hessrank.analysis.losses import LOSSES, Loss, make_loss
from hessrank.analysis.estimators.curvature_propagation import CurvaturePropagation
from hessrank.analysis.data import load_data
from hessrank.analysis.loading import load_model
from hessrank.distill.teacher import Teacher
from hessrank.distill.losses import make_distillation_loss
from hessrank.files import written_whole
from hessrank.quant.allocation import allocate
from hessrank.quant.make_policy import make_policy
from hessrank.quant.strategies import STRATEGIES
import hessrank
assert hessrank.rank is rank and hessrank.Ranking is Ranking and hessrank.make_policy is make_policy
"""


def test_what_people_import_works_and_warns_once_a_place() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "always::DeprecationWarning", "-c", PUBLIC], capture_output=True, text=True, check=True
    )
    told = [line for line in done.stderr.splitlines() if "DeprecationWarning" in line and "hessrank" in line]
    assert len(told) == len(set(told)) == 7, done.stderr
    assert all(line.startswith("<string>:") for line in told), done.stderr
