"""A network seen layer by layer: names, sizes, inputs, weights, curvature."""
