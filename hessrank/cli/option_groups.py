"""The options that several commands share, each declared once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hessrank.bounds import MOST_COUNT, MOST_SEED, MOST_WORKERS
from hessrank.files.size_limits import trusting_sizes

MODEL, DATA, HOW, OUTPUT = "Model", "Data", "How", "Output"


def _trust_sizes(context: typer.Context, wanted: bool) -> None:
    if wanted:
        context.with_resource(trusting_sizes())  # as long as the command runs


RankingPath = Annotated[Path, typer.Argument(help="A CSV that hessrank rank wrote.", show_default=False)]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Load files that may run code.", rich_help_panel=MODEL)
]
TrustSize = Annotated[
    bool,
    typer.Option(
        "--trust-size",
        help="Read files that take far more memory than they are large.",
        callback=_trust_sizes,
        rich_help_panel=MODEL,
    ),
]
Plugin = Annotated[
    list[str] | None,
    typer.Option(
        help="Method or observer of your own that the policy may name: file.py:Class; again for more.",
        show_default=False,
        rich_help_panel=HOW,
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Same seed, same bytes.", rich_help_panel=HOW)]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=MOST_WORKERS, help="CPU threads; torch's own choice by default.", rich_help_panel=HOW),
]
PlotTop = Annotated[
    int, typer.Option(min=1, max=MOST_COUNT, help="Layers in --plot; a large number for all.", rich_help_panel=OUTPUT)
]


@dataclass(frozen=True)
class ModelOptions:
    """The model argument, and how to read it."""

    model: Annotated[
        Path,
        typer.Argument(
            help=".pth/.pt checkpoint, .safetensors, .pt2, or a folder of save_pretrained", show_default=False
        ),
    ]
    arch: Annotated[
        str | None,
        typer.Option(help="What builds the network: pkg.mod:factory or file.py:factory.", rich_help_panel=MODEL),
    ] = None
    arch_args: Annotated[
        str | None, typer.Option(help="Its arguments as JSON: '{\"width\": 8}'.", rich_help_panel=MODEL)
    ] = None
    trust_pickle: TrustPickle = False
    trust_size: TrustSize = False
    weights_key: Annotated[
        str | None,
        typer.Option(
            help="Which weights of a file that holds several: ema, or teacher of names that begin with teacher.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None
    ignore_keys: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out keys of the file that the network lacks: 'pooler.*'; again for more.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None

    @property
    def files(self) -> tuple[Path, str | None]:
        """What is read: the model, and the file of code that builds it."""
        return self.model, self.arch and self.arch.partition(":")[0]


@dataclass(frozen=True)
class DataOptions:
    """Which samples the network sees."""

    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help=".npy .npz .pt .safetensors, a folder of images or RAW files, pkg.mod:loader, or random "
            "(with --input-shape). Default: the inputs that the checkpoint carries.",
            rich_help_panel=DATA,
        ),
    ] = None
    input_shape: Annotated[
        str | None,
        typer.Option(help="Shape of one sample: 3,224,224.", rich_help_panel=DATA),
    ] = None
    gain: Annotated[
        float | None, typer.Option(help="Amplification of RAW files of unknown exposure.", rich_help_panel=DATA)
    ] = None


@dataclass(frozen=True)
class BatchOptions:
    """How many samples, and how many of them together."""

    num_samples: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_COUNT, help="Samples to use, from the front; at most 32 by default.", rich_help_panel=DATA
        ),
    ] = None
    batch_size: Annotated[
        int,
        typer.Option(
            min=1, max=MOST_COUNT, help="Samples run together: speed and memory, same result.", rich_help_panel=DATA
        ),
    ] = 1


@dataclass(frozen=True)
class ComputeOptions:
    """With which seed, and where, to compute."""

    seed: Seed = 0
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda.", rich_help_panel=HOW)] = "cpu"
    threads: Threads = None
