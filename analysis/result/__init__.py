"""The ranking: its table, its record, its pictures."""
