"""The predicted increase of the loss if one tensor alone were quantized: how each number is found, and from what.

At few bits rounding errors are neither isotropic nor independent, so the increase is estimated from the errors
themselves (:mod:`rounding_damage`) wherever one backward pass gives it: the loss knows a factor S, and the
Gauss-Newton matrix is the Hessian. All else is ½ · E[trace/n · ‖Q(a) − a‖²], which is accurate above 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hessrank.analysis.batches import Batch
from hessrank.analysis.damage import weight_errors
from hessrank.analysis.estimators import Weight, Work
from hessrank.analysis.estimators.auto import curved_ones, where_exact
from hessrank.analysis.losses import output_tensors
from hessrank.analysis.estimators.base import target_of
from hessrank.analysis.probes import Probes, Rademacher, UnitVectors
from hessrank.analysis.rounding_damage import Grids, rounding_damage
from hessrank.analysis.rounds import Rounds
from hessrank.analysis.statistics import Array, Replicates
from hessrank.analysis.weights import channel_axis

MOST_BITS = 8  # above, errors are fine enough for the formula
