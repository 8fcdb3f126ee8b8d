"""The losses whose Hessian is estimated."""

from hessrank.analysis.losses.losses import LOSSES, Loss, make_loss

__all__ = ["LOSSES", "Loss", "make_loss"]
