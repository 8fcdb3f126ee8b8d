"""The shipped network's ranking, policy, ONNX file and trained weights are, byte for byte, those of release 0.6."""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch
from helpers.places import ROOT

from tests.safety.digests import PLAIN_KERNELS

DIGESTS = {
    "ranking.csv": "938ff345c91c999cec1df1c68acec9c152b54b74e41a19f3569d344dd510b451",
    "policy.yaml": "cebaed0131fcbd3fe6fed0f5ae5aabb6b4d1cb6f6f1857ad998c2eb3e10f205d",
    "model.onnx": "6db08b838c6a950a80967166ed60158489c621aa714992b72f18112d492ee93e",
    "trained weights": "59ec0b8b56a0f6ce90a3e7c9def8631b41e80e9b06c3facd154192bbc031c479",
}


@pytest.mark.skipif(
    platform.machine() != "x86_64" or torch.__version__.partition("+")[0] != "2.13.0",
    reason="other processors and other releases of torch add up in another order",
)
def test_the_chain_leaves_the_same_bytes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.safety.digests"],
        cwd=ROOT, env={**os.environ, **PLAIN_KERNELS}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout.rpartition("\n\n")[2]) == DIGESTS
