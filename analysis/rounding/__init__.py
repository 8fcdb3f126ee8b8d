"""What rounding to b bits does to the loss: predicted, and measured where the prediction does not hold."""
