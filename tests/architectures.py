"""Networks to prune: every architecture whose channels are coupled in a way of its own."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

from rcompress.models import build_model
from rcompress.models.cifar_resnet import FixedShortcut


class Own(nn.Module):
    """A user's module: two branches concatenated, a residual addition, a gate, a flattened image."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU())
        self.right = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PReLU(12))
        self.join = nn.Conv2d(20, 16, 1)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1)
        )
        self.block = nn.Sequential(
            nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1)
        )
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.hidden = nn.Linear(64, 32)
        self.classes = nn.Linear(32, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of (N, 3, H, W)."""
        x = self.join(torch.cat([self.left(images), self.right(images)], 1))
        x = x * torch.sigmoid(self.gate(x))
        x = x + self.block(x)
        return self.classes(torch.relu(self.hidden(torch.flatten(self.pool(x), 1))))


def vgg16_bn() -> nn.Module:
    """With a narrow classifier: the wide one takes seconds to initialise."""
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], batch_norm=True)
    module = torchvision.models.VGG(features, num_classes=10, init_weights=False)
    module.classifier = nn.Sequential(
        nn.Linear(512 * 7 * 7, 64),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(64, 64),
        nn.ReLU(True),
        nn.Linear(64, 10),
    )
    return module


def untrained(arch: str, **options: str) -> nn.Module:
    """In evaluation mode, BatchNorm's scales and variances as different from the start as trained ones."""
    torch.manual_seed(0)
    made = {"own": Own, "vgg16_bn": vgg16_bn}
    module = made[arch]() if arch in made else build_model(arch, 10, **options)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.eval()


def without_constants(module: nn.Module) -> nn.Module:
    """The same without biases and means: a filter of zeros then makes zeros."""
    with torch.no_grad():
        for layer in module.modules():
            if getattr(layer, "bias", None) is not None:
                layer.bias.zero_()
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.zero_()
    return module


def zero_filters(layer: nn.Module, channels: list[int]) -> None:
    """Make the filters of ``channels`` zero; a padding shortcut's are what they are."""
    if not isinstance(layer, FixedShortcut):
        with torch.no_grad():
            layer.weight[channels] = 0
