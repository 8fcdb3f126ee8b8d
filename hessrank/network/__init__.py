"""A network seen layer by layer: its names, sizes, inputs, weights, and where it bends."""
