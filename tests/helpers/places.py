"""Where the project's own files lie, and the shared data that tests use when they are there."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "examples" / "lowlight" / "model.pth"
SHARED = ROOT.parent / "shared" / "data"
