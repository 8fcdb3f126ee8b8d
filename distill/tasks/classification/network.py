"""A small network for small pictures."""

from __future__ import annotations

from torch import Tensor, nn

from hessrank.errors import DataError
from hessrank.models.architecture import own_network
from hessrank.text import shape_text

SMALLEST_SIDE = 8
"""Pixels that a picture has to have in each direction."""


class ConvBlock(nn.Module):
    """A 3×3 convolution without bias, batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map B×in_channels×H×W to B×out_channels×H×W."""
        y: Tensor = self.relu(self.norm(self.conv(x)))
        return y


@own_network
class DigitNet(nn.Module):
    """Pictures in, logits out: three convolutions, the last around a shortcut, and a linear classifier.

    Args:
        width: channels of the first convolution; the others have twice as many.
        classes: number of logits.
        channels: of a picture.
    """

    def __init__(self, width: int = 16, classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.stem = ConvBlock(channels, width)
        self.widen = ConvBlock(width, 2 * width)
        self.shrink = nn.MaxPool2d(2)
        self.residual = ConvBlock(2 * width, 2 * width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(2 * width, classes)

    def forward(self, picture: Tensor) -> Tensor:
        """Classify pictures.

        Args:
            picture: B×channels×H×W in [0, 1], H and W at least 8.

        Returns:
            Logits B×classes.

        Raises:
            DataError: the pictures have another number of channels or are too small.
        """
        if isinstance(picture, Tensor):  # torch.fx traces with a Proxy, whose size is unknown
            self._check_size(picture)
        x = self.shrink(self.widen(self.stem(picture)))
        x = x + self.residual(x)
        logits: Tensor = self.classifier(self.flatten(self.pool(x)))
        return logits

    def _check_size(self, picture: Tensor) -> None:
        fits = picture.dim() == 4 and picture.shape[1] == self.channels and min(picture.shape[2:]) >= SMALLEST_SIDE
        if not fits:
            raise DataError(
                f"this DigitNet takes B×{self.channels}×H×W with H and W of {SMALLEST_SIDE} or more, got "
                f"{shape_text(picture.shape)}: give arch_args: {{channels: …}}, or larger pictures"
            )
