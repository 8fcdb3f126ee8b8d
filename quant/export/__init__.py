"""ONNX with the integers a device will use, checked by running it."""
