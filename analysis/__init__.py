"""Stage 1: the trace of the loss Hessian at every activation, with error bars, and the ranking."""
