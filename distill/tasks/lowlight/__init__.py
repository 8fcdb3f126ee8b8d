"""Low-light RAW enhancement: the network, and photographs and data sets to train and judge it with."""

import importlib
from typing import TYPE_CHECKING, Any

from hessrank.distill.tasks.lowlight.camera import Camera
from hessrank.distill.tasks.lowlight.data.mcr_folders import mcr_pairs
from hessrank.distill.tasks.lowlight.data.mcr_pairs import McrPair, develop_gray_world
from hessrank.distill.tasks.lowlight.data.pairs import Pair
from hessrank.distill.tasks.lowlight.data.pattern import PATTERNS, align, demosaic_bilinear, mosaic
from hessrank.distill.tasks.lowlight.data.photographs import Night, NightPhotographs, held_out, load_photograph
from hessrank.distill.tasks.lowlight.data.samples import TrainingSquares, WholeFrames
from hessrank.distill.tasks.lowlight.data.sid import SidPair, develop, sid_pairs
from hessrank.distill.tasks.lowlight.data.squares import bayer_crop
from hessrank.distill.tasks.lowlight.network import DBF, DBLE, ChannelAttention, LowLight, TwoConv, initialize
from hessrank.distill.tasks.lowlight.quality import psnr_8bit, ssim_8bit

if TYPE_CHECKING:
    from hessrank.distill.tasks.lowlight.metrics import PictureMean
    from hessrank.distill.tasks.lowlight.task import LowLightTask

__all__ = [
    "DBF",
    "DBLE",
    "PATTERNS",
    "Camera",
    "ChannelAttention",
    "LowLight",
    "LowLightTask",
    "McrPair",
    "Night",
    "NightPhotographs",
    "Pair",
    "PictureMean",
    "SidPair",
    "TrainingSquares",
    "TwoConv",
    "WholeFrames",
    "align",
    "bayer_crop",
    "demosaic_bilinear",
    "develop",
    "develop_gray_world",
    "held_out",
    "initialize",
    "load_photograph",
    "mcr_pairs",
    "mosaic",
    "psnr_8bit",
    "sid_pairs",
    "ssim_8bit",
]

# torchmetrics takes a second to import, which who only ranks the network need not wait for
_LATE = {"LowLightTask": "task", "PictureMean": "metrics"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
