"""Stage 2: from a ranking to a policy, and a fake-quantized model that obeys it."""
