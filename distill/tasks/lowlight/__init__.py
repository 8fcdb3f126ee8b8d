"""Low-light RAW enhancement: the network, and photographs to train and judge it with."""

from hessrank.distill.tasks.lowlight.camera import Camera, demosaic_bilinear, mosaic_rggb
from hessrank.distill.tasks.lowlight.metrics import psnr_8bit
from hessrank.distill.tasks.lowlight.network import DBF, DBLE, ChannelAttention, LowLight, TwoConv
from hessrank.distill.tasks.lowlight.photographs import (
    Night,
    NightPhotographs,
    bayer_crop,
    held_out,
    load_photograph,
)

__all__ = [
    "DBF",
    "DBLE",
    "Camera",
    "ChannelAttention",
    "LowLight",
    "Night",
    "NightPhotographs",
    "TwoConv",
    "bayer_crop",
    "demosaic_bilinear",
    "held_out",
    "load_photograph",
    "mosaic_rggb",
    "psnr_8bit",
]
