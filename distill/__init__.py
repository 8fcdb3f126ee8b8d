"""Stage 3: networks that can be ranked, quantized and trained, by task."""
