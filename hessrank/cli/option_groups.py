"""The options that several commands share: which model, which data, where to compute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hessrank.bounds import MOST_COUNT, MOST_SEED, MOST_WORKERS
from hessrank.files.size_limits import trusting_sizes

MODEL, DATA, HOW, OUTPUT = "Model", "Data", "How", "Output"

ModelPath = Annotated[
    Path,
    typer.Argument(
        help=".pth/.pt checkpoint, .safetensors, .pt2, or a folder of save_pretrained", show_default=False
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(help="What builds the network: pkg.mod:factory or file.py:factory.", rich_help_panel=MODEL),
]
ArchArgs = Annotated[str | None, typer.Option(help="Its arguments as JSON: '{\"width\": 8}'.", rich_help_panel=MODEL)]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Load files that may run code.", rich_help_panel=MODEL)
]
Plugin = Annotated[
    list[str] | None,
    typer.Option(
        help="Method or observer of your own that the policy may name: file.py:Class; again for more.",
        show_default=False,
        rich_help_panel=HOW,
    ),
]


def _trust_sizes(context: typer.Context, wanted: bool) -> None:
    if wanted:
        context.with_resource(trusting_sizes())  # as long as the command runs


TrustSize = Annotated[
    bool,
    typer.Option(
        "--trust-size",
        help="Read files that take far more memory than they are large.",
        callback=_trust_sizes,
        rich_help_panel=MODEL,
    ),
]
WeightsKey = Annotated[
    str | None,
    typer.Option(
        help="Which weights of a file that holds several: ema, or teacher of names that begin with teacher.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
IgnoreKeys = Annotated[
    list[str] | None,
    typer.Option(
        help="Leave out keys of the file that the network lacks: 'pooler.*'; again for more.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
DataSpec = Annotated[
    str | None,
    typer.Option(
        "--data",
        help=".npy .npz .pt .safetensors, a folder of images or RAW files, pkg.mod:loader, or random "
        "(with --input-shape). Default: the inputs that the checkpoint carries.",
        rich_help_panel=DATA,
    ),
]
InputShape = Annotated[str | None, typer.Option(help="Shape of one sample: 3,224,224.", rich_help_panel=DATA)]
NumSamples = Annotated[
    int | None,
    typer.Option(
        min=1, max=MOST_COUNT, help="Samples to use, from the front; at most 32 by default.", rich_help_panel=DATA
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        min=1, max=MOST_COUNT, help="Samples run together: speed and memory, same result.", rich_help_panel=DATA
    ),
]
Gain = Annotated[
    float | None, typer.Option(help="Amplification of RAW files of unknown exposure.", rich_help_panel=DATA)
]
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Same seed, same bytes.", rich_help_panel=HOW)]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda.", rich_help_panel=HOW)]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=MOST_WORKERS, help="CPU threads; torch's own choice by default.", rich_help_panel=HOW),
]
PlotTop = Annotated[
    int, typer.Option(min=1, max=MOST_COUNT, help="Layers in --plot; a large number for all.", rich_help_panel=OUTPUT)
]
