"""The policy file: reading, writing, what it means for a network."""
