"""The order of the layers, and how certain it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hessrank.analysis.statistics import Array, Gaps

_NOT_WORTH_IT = 0.02  # of the pairs that endless probes must settle for sampling to go on


@dataclass(frozen=True)
class RankOrder:
    """Replicates of what the layers are ranked by, and how far they settle the order.

    Attributes:
        replicates: in the order of execution, shape (layers, replicates).
        settled: whether a layer's place among its neighbors is certain, shape (layers,).
        open_pairs: how many neighboring pairs are not settled.
        within_reach: more probes could settle enough of them.
        stopped_by: why sampling ended: ``settled``, ``samples`` (only more samples would help), ``max-probes`` or
            ``exact``; ``increase-probes`` where only more draws of the increases would settle the order; empty while
            it goes on.
    """

    replicates: Array
    settled: NDArray[np.bool_]
    open_pairs: int = 0
    within_reach: bool = True
    stopped_by: str = ""

    @classmethod
    def judge(cls, replicates: Array, probe_share: Array, tolerance: float, *, certain: bool = False) -> RankOrder:
        """See which neighbors are open, and whether more probes could settle any of them.

        Args:
            replicates: of what the layers are ranked by, shape (layers, replicates).
            probe_share: the part of each one's squared standard error that more probes would remove, shape (layers,).
            tolerance: relative difference that does not matter.
            certain: the values have no noise: a single sample's, exactly. Nothing is open then.
        """
        if certain:
            return cls(replicates, np.ones(len(replicates), dtype=np.bool_))
        order = np.argsort(-replicates.mean(1), kind="stable")
        gaps = Gaps.between(replicates, order)
        pairs = gaps.open(tolerance)
        unsettled = np.zeros(len(order), dtype=np.bool_)
        unsettled[order[:-1][pairs]] = unsettled[order[1:][pairs]] = True
        share = probe_share[order]
        without_probe_noise = np.sqrt(1 - np.maximum(share[:-1], share[1:]))
        within_reach = int((pairs & ~gaps.open(tolerance, without_probe_noise)).sum())
        return cls(replicates, ~unsettled, int(pairs.sum()), within_reach > _NOT_WORTH_IT * len(pairs))
