"""Samples traces until the order of the layers is settled."""
