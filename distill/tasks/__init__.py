"""What can be trained: one sub-package per task."""
