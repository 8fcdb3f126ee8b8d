"""All rows of the table, in its order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.peers import curvlinops, eigenthings, mct, mqbench, neural_compressor, nncf, own
from benchmarks.peers.adapter import Peer, Sample, Tensors
from benchmarks.peers.cases import Case

_EACH = "Hessian, layer by layer"
_SHARED = "Hessian, one product for all"


def _mean_only(name: str, title: str, tensors: Tensors, estimates: str, prepare: Callable[[Case], Sample]) -> Peer:
    """Return a peer that gives the mean of its probes and no error bar; its package is called as it is."""
    return Peer(name, title, name.replace("-", "_"), tensors, estimates, "no", prepare, returns_each=False)


PEERS: tuple[Peer, ...] = (
    Peer("hessrank", "hessrank", "", "activations", "Hessian", "yes", own.prepare_hessrank),
    Peer("loop", "per-layer loop (HAWQ-V2)", "", "activations", _EACH, "no", own.prepare_loop("hutchinson")),
    _mean_only("mqbench", "MQBench hessian_per_layer", "activations", _EACH, mqbench.prepare),
    Peer(
        "pyhessian", "PyHessian by hessrank", "pyhessian", "activations", _EACH, "no", own.prepare_loop("pyhessian")
    ),
    Peer(
        "mct",
        "Sony MCT",
        "model_compression_toolkit",
        "activations",
        "JᵀJ, layer by layer",
        "no",
        mct.prepare,
        returns_each=False,
        gauss_newton=True,
    ),
    _mean_only("curvlinops", "curvlinops", "activations", _EACH, curvlinops.prepare_activations),
    _mean_only(
        "neural-compressor", "Neural Compressor HAWQ", "activations", _SHARED, neural_compressor.prepare_activations
    ),
    Peer(
        "brute-force",
        "brute force, 8 bits",
        "",
        "activations",
        "increase by rounding",
        "no",
        own.prepare_brute_force,
        deterministic=True,
    ),
    Peer(
        "hessrank",
        "hessrank, weights too",
        "",
        "weights",
        "Hessian",
        "yes",
        partial(own.prepare_hessrank, tensors="weights"),
    ),
    _mean_only("nncf", "NNCF HAWQ", "weights", _SHARED, nncf.prepare()),
    _mean_only("nncf", "NNCF HAWQ, noise taken out", "weights", _SHARED, nncf.prepare(from_zero=True)),
    _mean_only("neural-compressor", "Neural Compressor HAWQ", "weights", _SHARED, neural_compressor.prepare_weights),
    _mean_only("curvlinops", "curvlinops", "weights", _EACH, curvlinops.prepare_weights),
    Peer(
        "hessian-eigenthings",
        "hessian-eigenthings",
        "hessian_eigenthings",
        "weights",
        _EACH,
        "over probes",
        eigenthings.prepare,
    ),
)
