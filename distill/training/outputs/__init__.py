"""What a training leaves: its folder, its checkpoints, its result."""
