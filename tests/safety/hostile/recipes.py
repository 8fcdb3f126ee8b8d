"""Commands that work, and the files that each of them reads."""

from __future__ import annotations

from dataclasses import dataclass

from .inputs import FAST, NET


@dataclass(frozen=True)
class Recipe:
    """A command that works.

    Attributes:
        arguments: of ``hessrank``.
        files: what it reads, files and folders.
    """

    arguments: tuple[str, ...]
    files: tuple[str, ...]


def _recipe(arguments: str, files: str, *more: str) -> Recipe:
    return Recipe((*arguments.split(), *more), tuple(files.split()))


_TABLE = "ranking.csv ranking.json"
_PHOTOS = "digits.pth photos"
RECIPES: dict[str, tuple[Recipe, ...]] = {
    "rank": (
        _recipe("rank state.pth --data x.npy --out new.csv", "state.pth x.npy nets.py", *NET, *FAST),
        _recipe("rank whole.pth --out new.csv", "whole.pth", *FAST),
        _recipe(
            "rank state.safetensors --data xy.npz --loss cross-entropy --out new.csv",
            "state.safetensors xy.npz nets.py",
            *NET,
            *FAST,
        ),
        _recipe("rank state.pth --data x.pt --loss cross-entropy", "state.pth x.pt nets.py", *NET, *FAST),
        _recipe("rank state.pth --data x.safetensors --out new.csv", "state.pth x.safetensors nets.py", *NET, *FAST),
        _recipe("rank state.pth --data images --out new.csv", "state.pth images nets.py", *NET, *FAST),
        _recipe(
            "rank state.pth --data random --input-shape 3,6,6 --out new.csv --plot new.png",
            "state.pth nets.py",
            *NET,
            *FAST,
        ),
    ),
    "default": (_recipe("state.pth --data x.npy --out new.csv", "state.pth x.npy nets.py", *NET, *FAST),),
    "show": (
        _recipe("show ranking.csv", _TABLE),
        _recipe("show ranking.csv --by act_increase_b4 --top 2", _TABLE),
        _recipe("show ranking.csv --plot new.png --depth new-depth.svg", _TABLE),
    ),
    "policy": (
        _recipe("policy ranking.csv --out new.yaml", _TABLE),
        _recipe("policy ranking.csv --strategy top-k --by trace --distill top-trace --dry-run", _TABLE),
        _recipe("policy ranking.csv --strategy threshold --above 1e-6", _TABLE),
        _recipe(
            "policy ranking.csv --strategy middle --budget-bops 5e6 --base-bits 4 --out new.yaml --bit-map new.png",
            _TABLE,
        ),
        _recipe("policy ranking.csv --strategy budget --bits 4,8 --budget-mean-bits 6 --out new.yaml", _TABLE),
        _recipe(
            "policy ranking.csv --strategy budget --bits 4,8 --latency latency.csv --budget-latency 3",
            f"{_TABLE} latency.csv",
        ),
        _recipe("policy ranking.csv --pareto new.csv --bits 4,8 --plot new.png --out new.yaml", _TABLE),
    ),
    "check": (
        _recipe("check policy.yaml state.pth --data x.npy", "policy.yaml state.pth x.npy nets.py", *NET),
        _recipe("check hand.yaml whole.pth", "hand.yaml whole.pth"),
    ),
    "train": (
        _recipe("train run.yaml", f"run.yaml config.yaml {_PHOTOS}"),
        _recipe("train run.yaml --resume", f"run.yaml config.yaml {_PHOTOS} runs"),
        _recipe("train run.yaml --epochs 0 --out new", f"run.yaml config.yaml {_PHOTOS}"),
    ),
    "study": (
        _recipe("study study.yaml", f"study.yaml hand.yaml {_PHOTOS} studies"),
        _recipe("study study.yaml --only float", f"study.yaml hand.yaml {_PHOTOS}"),
    ),
    "export": (
        _recipe(
            "export state.pth --policy policy.yaml --data x.npy --num-samples 1 --out new.onnx --scales new.json",
            "state.pth policy.yaml x.npy nets.py",
            *NET,
        ),
        _recipe(
            "export state.pth --policy policy.yaml --state quantized.pth --data xy.npz --out new.onnx",
            "state.pth policy.yaml quantized.pth xy.npz nets.py",
            *NET,
        ),
        _recipe("export trained.ckpt --out new.onnx", "trained.ckpt"),
    ),
    "verify": (
        _recipe(
            "verify state.pth ranking.csv --data xy.npz --num-samples 1 --out new.csv",
            f"state.pth xy.npz nets.py {_TABLE}",
            *NET,
        ),
        _recipe(
            "verify state.pth ranking.csv --data images --bits 4 --layer 0 --plot new.png",
            f"state.pth images nets.py {_TABLE}",
            *NET,
        ),
    ),
    "compare": (
        _recipe("compare ranking.csv second.csv --out new.csv", f"{_TABLE} second.csv second.json"),
        _recipe("compare ranking.csv second.csv --by mean_trace --plot new.png", f"{_TABLE} second.csv second.json"),
    ),
}
SHARES = {"rank": 15, "default": 3, "show": 12, "policy": 20, "check": 10, "train": 12, "study": 6, "export": 6}
SHARES |= {"verify": 8, "compare": 8}
