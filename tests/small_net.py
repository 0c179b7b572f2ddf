"""A network of one's own with BatchNorm, small enough that an epoch of digits takes a second."""

from __future__ import annotations

from torch import Tensor, nn

ARCH = "small_net:small"


class Small(nn.Module):
    """Two convolutions and a head: (N, 3, 32, 32) to (N, classes)."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, stride=2, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride=2, bias=False), nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.bn2(self.conv2(self.bn1(self.conv1(images)).relu())).relu()
        logits: Tensor = self.fc(features.mean((2, 3)))
        return logits


def small(num_classes: int) -> Small:
    """For ``--arch small_net:small``."""
    return Small(num_classes, 16)


def wide(num_classes: int) -> Small:
    """For ``--arch small_net:wide``: wide enough that widths can be rounded to 16."""
    return Small(num_classes, 32)


def unscored(num_classes: int) -> nn.Sequential:
    """For ``--arch small_net:unscored``: its hidden linear layer has no BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=4, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )
