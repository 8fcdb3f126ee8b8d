"""Fake-quantizers: observers and methods, by name."""
