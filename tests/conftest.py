"""What every test needs: one thread, and no display."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("COLUMNS", "120")

import torch

torch.set_num_threads(1)
