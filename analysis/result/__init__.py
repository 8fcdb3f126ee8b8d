"""The ranking: its table, its record and its plots."""
