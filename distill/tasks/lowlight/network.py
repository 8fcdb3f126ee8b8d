"""The two-stage low-light network: a monochrome picture first, then color with its help.

Written from the published description: Dong et al., "Abandoning the Bayer-Filter to See in the Dark",
CVPR 2022 (https://arxiv.org/abs/2203.04042). ``DBF`` ("de-Bayer-filter") guesses from a color RAW what a
sensor without color filters would have seen; ``DBLE`` ("dual branch low-light enhancement") joins both
into a color picture. Parameters carry the names of the published checkpoints, so that these load.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hessrank.errors import DataError
from hessrank.models.architecture import own_network

SIZE_MULTIPLE = 32
"""Height and width must be multiples of this: one unshuffle and four poolings, each by 2."""


def initialize(module: nn.Module) -> None:
    """Draw a convolution's weights as He et al. 2015 do for a LeakyReLU of slope 0.2, and set its bias to zero.

    torch's default leaves the deep levels almost silent. For ``LowLight().apply(initialize)``.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
        nn.init.kaiming_normal_(module.weight, a=0.2)
        nn.init.zeros_(module.bias)


class TwoConv(nn.Module):
    """Two 3×3 convolutions with bias, each followed by the same LeakyReLU of slope 0.2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.Conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.lrelu = nn.LeakyReLU(0.2)
        self.Conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map B×in_channels×H×W to B×out_channels×H×W."""
        x = self.lrelu(self.Conv1(x))
        y: Tensor = self.lrelu(self.Conv2(x))
        return y


class ChannelAttention(nn.Module):
    """Gate each channel by a number in (0, 1) computed from all channels' means.

    Zhang et al., "Image Super-Resolution Using Very Deep Residual Channel Attention Networks", ECCV 2018,
    equations 10 and 11: x · sigmoid(W₂ relu(W₁ mean(x))), reduction 16.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (B×C×H×W) with each channel scaled by its gate."""
        gate: Tensor = self.conv_du(self.avg_pool(x))
        return x * gate


def _up(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)


@own_network
class DBF(nn.Module):
    """The U-Net that turns a color RAW into a monochrome picture.

    Args:
        width: channels at full resolution; they double at each of four poolings (published: 8).
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        w1, w2, w3, w4, w5 = (width << level for level in range(5))
        self.DBF_conv1 = TwoConv(1, w1)
        self.DBF_conv2 = TwoConv(w1, w2)
        self.DBF_conv3 = TwoConv(w2, w3)
        self.DBF_conv4 = TwoConv(w3, w4)
        self.DBF_conv5 = TwoConv(w4, w5)
        self.pool1 = nn.MaxPool2d(2)
        self.DBF_upv5 = _up(w5, w4)
        self.DBF_conv6 = TwoConv(w5, w4)
        self.DBF_upv6 = _up(w4, w3)
        self.DBF_conv7 = TwoConv(w4, w3)
        self.DBF_upv7 = _up(w3, w2)
        self.DBF_conv8 = TwoConv(w3, w2)
        self.DBF_upv8 = _up(w2, w1)
        self.DBF_conv9 = TwoConv(w2, w1)
        self.DBF_out = nn.Conv2d(w1, 1, 3, padding=1)

    def forward(self, raw: Tensor) -> Tensor:
        """Map a mosaic B×1×H×W to a monochrome picture B×1×H×W (H, W multiples of 16)."""
        x1 = self.DBF_conv1(raw)
        x2 = self.DBF_conv2(self.pool1(x1))
        x3 = self.DBF_conv3(self.pool1(x2))
        x4 = self.DBF_conv4(self.pool1(x3))
        x5 = self.DBF_conv5(self.pool1(x4))
        y = self.DBF_conv6(torch.cat((self.DBF_upv5(x5), x4), 1))
        y = self.DBF_conv7(torch.cat((self.DBF_upv6(y), x3), 1))
        y = self.DBF_conv8(torch.cat((self.DBF_upv7(y), x2), 1))
        y = self.DBF_conv9(torch.cat((self.DBF_upv8(y), x1), 1))
        mono: Tensor = self.DBF_out(y)
        return mono


@own_network
class DBLE(nn.Module):
    """The U-Net with a color and a monochrome encoder and one gated decoder.

    Args:
        width: channels at the first level; they double at each of four poolings (published: 32).
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        levels = [4, *(width << level for level in range(5))]
        for branch in ("color", "mono"):
            for level in range(1, 6):
                self.add_module(f"{branch}_conv{level}", TwoConv(levels[level - 1], levels[level]))
            self.add_module(f"{branch}_up5", _up(levels[5], levels[4]))
        self.pool1 = nn.MaxPool2d(2)
        for stage, level in zip(range(6, 10), range(4, 0, -1), strict=True):
            # the first concatenation holds two up-convolutions and two skips, the others one and two
            channels = levels[level] * (4 if stage == 6 else 3)
            self.add_module(f"channel_attention{stage}", ChannelAttention(channels))
            self.add_module(f"dual_conv{stage}", TwoConv(channels, levels[level]))
            if stage < 9:
                self.add_module(f"dual_up{stage}", _up(levels[level], levels[level - 1]))
        self.DBLE_out = nn.Conv2d(width, 12, 1)

    def _encode(self, branch: str, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the up-sampled bottom of one encoder and its four skips, the deepest first."""
        skips: list[Tensor] = []
        for level in range(1, 6):
            x = self.get_submodule(f"{branch}_conv{level}")(x if level == 1 else self.pool1(x))
            skips.insert(0, x)
        return self.get_submodule(f"{branch}_up5")(x), skips[1:]

    def forward(self, color: Tensor, mono: Tensor) -> Tensor:
        """Map two unshuffled pictures B×4×h×w to B×12×h×w (h, w multiples of 16)."""
        color_up, color_skips = self._encode("color", color)
        mono_up, mono_skips = self._encode("mono", mono)
        ups = [color_up, mono_up]
        for stage, color_skip, mono_skip in zip(range(6, 10), color_skips, mono_skips, strict=True):
            y = torch.cat((*ups, color_skip, mono_skip), 1)
            y = self.get_submodule(f"channel_attention{stage}")(y)
            y = self.get_submodule(f"dual_conv{stage}")(y)
            ups = [self.get_submodule(f"dual_up{stage}")(y)] if stage < 9 else [y]
        out: Tensor = self.DBLE_out(ups[0])
        return out


@own_network
class LowLight(nn.Module):
    """Amplified color RAW in, monochrome and color picture out.

    Args:
        dbf_width: first width of :class:`DBF`.
        dble_width: first width of :class:`DBLE`. The defaults are the published network, 15,013,791
            parameters.
    """

    def __init__(self, dbf_width: int = 8, dble_width: int = 32) -> None:
        super().__init__()
        self.DBF = DBF(dbf_width)
        self.unshuffle = nn.PixelUnshuffle(2)
        self.DBLE = DBLE(dble_width)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Develop a RAW.

        Args:
            raw: RGGB mosaic B×1×H×W, black level taken off, amplified by the exposure ratio, in [0, 1].

        Returns:
            ``mono`` B×1×H×W and ``rgb`` B×3×H×W, both gamma-encoded, about [0, 1], not clipped.

        Raises:
            DataError: ``raw`` is not B×1×H×W with H and W multiples of 32.
        """
        if isinstance(raw, Tensor):  # torch.fx traces with a Proxy, whose size is unknown
            _check_size(raw)
        mono = self.DBF(raw)
        rgb = self.shuffle(self.DBLE(self.unshuffle(raw), self.unshuffle(mono)))
        return mono, rgb


def _check_size(raw: Tensor) -> None:
    shape = "×".join(map(str, raw.shape))
    if raw.dim() != 4 or raw.shape[1] != 1:
        raise DataError(f"the low-light network takes B×1×H×W, got {shape}")
    if raw.shape[2] % SIZE_MULTIPLE or raw.shape[3] % SIZE_MULTIPLE:
        raise DataError(
            f"the low-light network takes heights and widths that are multiples of {SIZE_MULTIPLE}, "
            f"got {shape}: crop or pad the input"
        )
