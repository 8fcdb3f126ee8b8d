"""Stage 1: estimate the Hessian's trace at every activation, and rank layers."""
