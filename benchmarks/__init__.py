"""Side-by-side measurements against what users would otherwise run: ``python -m benchmarks.NAME [--quick]``."""
