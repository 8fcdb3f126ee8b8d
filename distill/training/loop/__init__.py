"""A training's steps: Lightning's loop, the optimizer, and where a NaN comes from."""
