"""Rules that make a policy of a ranking, by name."""
