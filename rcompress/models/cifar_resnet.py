"""The CIFAR ResNets of He et al. 2016 (Deep Residual Learning, section 4.2): 6n + 2 layers, 16-32-64 channels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Shortcut = Literal["projection", "pad"]


class FixedShortcut(nn.Conv2d):
    """Option A's shortcut (every second pixel, new channels zero) as a fixed 0/1 convolution.

    Written as slice-and-pad, a pruner cannot see that input channel i is output channel i + padding; as a
    convolution the coupling is explicit and removing channels keeps the outputs. Never trained.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, kernel_size=1, stride=stride, bias=False)
        self.weight.requires_grad_(False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Input channel i goes to output channel i + (outputs - inputs) // 2."""
        with torch.no_grad():
            self.weight.zero_()
            offset = (self.out_channels - self.in_channels) // 2
            for channel in range(self.in_channels):
                self.weight[channel + offset, channel] = 1.0


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, named as in torchvision, whose import takes seconds."""

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += shortcut
        return self.relu(x)  # type: ignore[no-any-return]


class CifarResNet(nn.Module):
    """Input (N, 3, H, W), output (N, classes); three stages of ``blocks`` basic blocks each."""

    def __init__(self, blocks: int, num_classes: int, shortcut: Shortcut = "projection") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(16, 16, blocks, 1, shortcut)
        self.layer2 = _stage(16, 32, blocks, 2, shortcut)
        self.layer3 = _stage(32, 64, blocks, 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not isinstance(module, FixedShortcut):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits of ``images``."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]


def _stage(inputs: int, outputs: int, blocks: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride, _shortcut(inputs, outputs, stride, shortcut))
    return nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))


def _shortcut(inputs: int, outputs: int, stride: int, kind: Shortcut) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    if kind == "pad":
        return FixedShortcut(inputs, outputs, stride)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
