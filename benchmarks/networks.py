"""The networks that are measured: low-light at published widths, ResNet-18, chains of equal layers."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hessrank.distill.tasks.lowlight import LowLight

Example = tuple[nn.Module, Tensor]
"""A network in eval mode and one input, 1×…"""


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch norm around a shortcut (He et al. 2016, figure 5 left)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map B×inputs×H×W to B×outputs×H/stride×W/stride."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += shortcut
        out: Tensor = self.relu(y)
        return out


class ResNet18(nn.Module):
    """ResNet-18 with ReLUs in place, as torchvision has it: 11,689,512 parameters at 1000 classes."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        widths = [64, 64, 128, 256, 512]
        for i in range(1, 5):
            first = BasicBlock(widths[i - 1], widths[i], 1 if i == 1 else 2)
            self.add_module(f"layer{i}", nn.Sequential(first, BasicBlock(widths[i], widths[i], 1)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures B×3×H×W to logits B×classes."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def low_light(size: int = 128, *, dbf_width: int = 8, dble_width: int = 32) -> Example:
    """Return the low-light network (published widths: 8 and 32) and a RAW of random numbers, 1×1×size×size."""
    torch.manual_seed(0)
    network = LowLight(dbf_width, dble_width)
    initialize(network)
    return network.eval(), torch.rand(1, 1, size, size)


def resnet18(size: int = 224) -> Example:
    """Return ResNet-18 and a picture of random numbers, 1×3×size×size; batch norm has seen four others."""
    torch.manual_seed(0)
    network = ResNet18()
    initialize(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(torch.rand(4, 3, size, size))
    return network.eval(), torch.rand(1, 3, size, size)


def chain(length: int, channels: int = 16, size: int = 64) -> Example:
    """Return ``length`` 3×3 convolutions with a LeakyReLU each, and an input 1×channels×size×size."""
    torch.manual_seed(0)
    layers = [
        module for _ in range(length) for module in (nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(0.2))
    ]
    network = nn.Sequential(*layers)
    initialize(network)
    return network.eval(), torch.rand(1, channels, size, size)


def initialize(network: nn.Module) -> None:
    """Give convolutions weights that keep the size of activations and gradients (He et al. 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan = module.weight[0].numel()
            if isinstance(module, nn.ConvTranspose2d):  # each output pixel of ours meets one tap of the 2×2 kernel
                fan = module.in_channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


EXAMPLES: dict[str, Callable[[], Example]] = {
    "low-light, 1×1×128×128": low_light,
    "ResNet-18, 1×3×224×224": resnet18,
}
QUICK: dict[str, Callable[[], Example]] = {
    "low-light, widths 2 and 16, 1×1×32×32": lambda: low_light(32, dbf_width=2, dble_width=16),
    "ResNet-18, 1×3×64×64": lambda: resnet18(64),
}
