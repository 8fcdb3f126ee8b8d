"""hessrank beside what its users would otherwise run, each by its own code: ``python -m benchmarks.peers``.

Every peer is an *adapter*: a module that brings a network into the peer's hands, asks it for some probes and gives
back what it estimated, tensor by tensor. A run (:mod:`benchmarks.peers.one`) has a process of its own, in the
environment of its peer; :mod:`benchmarks.peers.table` makes of all of them one table.
"""
