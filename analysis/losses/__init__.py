"""The losses whose Hessian is estimated, by name."""

from hessrank.analysis.losses.base import Loss, curvature_times, no_curvature
from hessrank.analysis.losses.charbonnier import Charbonnier
from hessrank.analysis.losses.cross_entropy import CrossEntropy
from hessrank.analysis.losses.custom_loss import CustomLoss
from hessrank.analysis.losses.make_loss import is_registered, make_loss
from hessrank.analysis.losses.self_distance import Self
from hessrank.analysis.losses.squared_error import SquaredError
from hessrank.analysis.registries import LOSSES

__all__ = [
    "LOSSES",
    "Charbonnier",
    "CrossEntropy",
    "CustomLoss",
    "Loss",
    "Self",
    "SquaredError",
    "curvature_times",
    "is_registered",
    "make_loss",
    "no_curvature",
]
