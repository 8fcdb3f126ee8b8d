"""Bad inputs for every command, made from a seed, and what must hold whatever they do.

``python -m tests.safety.hostile --cases 10000`` runs so many and prints a table; with each case that fails stands the
command that repeats it.
"""
