"""How long an exact allocation takes: layers × 5 widths, under a limit on size, on BOPs, and on both; CPU seconds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from functools import partial

import numpy as np

from benchmarks.common import Row, parsed, parser, report, seconds
from hessrank.quant.bit_choice.allocation.allocate import Limit, PairCost, allocate

WIDTHS = np.array([4.0, 5.0, 6.0, 8.0, 10.0])
SHARES = (0.1, 0.4, 0.7)  # of the way from the least to the most that can be spent


def limits_of(layers: int, share: float, rng: np.random.Generator) -> Mapping[str, list[Limit]]:
    """Return limits for a chain: decision l is the weight of layer l, decision layers + l the grid that it reads."""
    elements, macs = 10 ** rng.uniform(3, 6, layers), 10 ** rng.uniform(5, 8, layers)
    size = np.concatenate([np.outer(elements, WIDTHS) / 2**23, np.zeros((layers, len(WIDTHS)))])
    low, high = size.min(axis=1).sum(), size.max(axis=1).sum()
    small = Limit("size", low + share * (high - low), size, unit="MiB")
    products = np.outer(WIDTHS, WIDTHS)
    pairs = [PairCost(layer, layers + layer, macs[layer] * products) for layer in range(layers)]
    bops = Limit("BOPs", macs.sum() * (products.min() + share * np.ptp(products)), pairs=pairs)
    return {"size": [small], "BOPs": [bops], "size and BOPs": [small, bops]}


def damage_of(layers: int, rng: np.random.Generator) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return damages over six orders of magnitude that fall by about four with each bit."""
    scale = 10 ** rng.uniform(-6, 0, (2 * layers, 1))
    return scale * 4.0**-WIDTHS * rng.uniform(0.8, 1.25, (2 * layers, len(WIDTHS)))


def main() -> None:
    """Measure and print the table."""
    options = parsed(parser(__doc__))
    layers, seeds = (40, 1) if options.quick else (500, 4)
    taken: dict[tuple[str, float], list[float]] = {}
    for seed in range(seeds):
        for share in SHARES:
            rng = np.random.default_rng(seed)
            damage = damage_of(layers, rng)
            for name, limits in limits_of(layers, share, rng).items():
                for tolerance in (0.0, 1e-3):
                    work = partial(allocate, damage, limits, tolerance=tolerance)
                    taken.setdefault((name, tolerance), []).append(seconds(work))
    rows: list[Row] = [
        {
            "limit": name,
            "tolerance": tolerance,
            "decisions": 2 * layers,
            "problems": len(times),
            "median seconds": statistics.median(times),
            "most": max(times),
        }
        for (name, tolerance), times in taken.items()
    ]
    report(f"Allocation for {layers} layers × {len(WIDTHS)} widths, weights and activations", rows, options.out)


if __name__ == "__main__":
    main()
