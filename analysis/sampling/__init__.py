"""Probes drawn until the order of the layers is settled, and what they add up to."""
