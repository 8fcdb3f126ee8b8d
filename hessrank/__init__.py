"""Which layers of a network suffer most when you quantize them."""
