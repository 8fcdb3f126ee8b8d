"""Predicts how rounding to b bits changes the loss; measures where that fails."""
