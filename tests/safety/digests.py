"""Runs the whole chain on the shipped network, and tells a digest of each file that it leaves.

``python -m tests.safety.digests`` prints them. It has torch take the kernels that x86 processors of any age have: the
same sums in the same order.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

from tests.helpers.places import SHIPPED

PLAIN_KERNELS = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}
RUN = """
task: lowlight
task_args: {samples: 2, patch: 32}
load_model: model.pth
config_file_path: policy.yaml
epochs: 1
batch_size: 2
learning_rate: 0.0001
pictures: 0
"""
SAMPLES = "--data random --input-shape 1,32,32 --num-samples 2"
COMMANDS = (
    f"rank model.pth {SAMPLES} --max-probes 4 --increase-probes 16 --out ranking.csv",
    "policy ranking.csv --base-bits 4 --out policy.yaml",
    f"export model.pth {SAMPLES} --policy policy.yaml --no-dynamic --out model.onnx",
    "train run.yaml",
)


def run_chain(folder: Path) -> dict[str, str]:
    """Run rank, policy, export and train in ``folder``; return the SHA-256 of what they leave, by file."""
    from hessrank.cli import main

    (folder / "model.pth").write_bytes(SHIPPED.read_bytes())
    (folder / "run.yaml").write_text(RUN, encoding="utf-8")
    os.chdir(folder)
    for command in COMMANDS:
        if main(command.split()):
            raise RuntimeError(f"hessrank {command} failed")
    files = {name: Path(name).read_bytes() for name in ("ranking.csv", "policy.yaml")}
    files["model.onnx"] = _without_release(Path("model.onnx"))
    files["trained weights"] = _weights(next(Path("runs").glob("*/last*.ckpt")))
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _without_release(path: Path) -> bytes:
    import onnx

    model = onnx.load(path)
    model.producer_version = ""
    return bytes(model.SerializeToString(deterministic=True))


def _weights(path: Path) -> bytes:
    import torch

    state = torch.load(path, weights_only=True)["state_dict"]
    tensors = sorted((name, value) for name, value in state.items() if isinstance(value, torch.Tensor))
    return b"".join(name.encode() + value.numpy().tobytes() for name, value in tensors)


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in PLAIN_KERNELS.items()):
        os.execve(sys.executable, [sys.executable, "-m", "tests.safety.digests"], {**os.environ, **PLAIN_KERNELS})
    with tempfile.TemporaryDirectory() as name:
        print("\n" + json.dumps(run_chain(Path(name)), indent=1))
