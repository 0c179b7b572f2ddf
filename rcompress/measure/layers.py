"""What each layer of a checkpoint holds: its width and how many of its weights are not zero."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from rcompress.artifacts.spec import CHECKPOINT_SUFFIXES
from rcompress.models.cifar_resnet import FixedShortcut
from rcompress.models.rebuild import load_model


def layer_figures(path: Path, arch: str | None = None) -> dict[str, dict[str, int]]:
    """By name, the trained convolutions and linear layers of a checkpoint in the network's order.

    Args:
        path: any artifact; graphs and engines, whose layers have other names and are fused, give nothing.
        arch: the user's own architecture, for a checkpoint that was built by it.

    Returns:
        ``width`` (channels or features that come out), ``weights`` and ``nonzero`` (without biases).
    """
    if path.suffix not in CHECKPOINT_SUFFIXES:
        return {}
    layers = load_model(path, arch).module.named_modules()
    return {
        name: _figures(layer.weight)
        for name, layer in layers
        if isinstance(layer, nn.Conv2d | nn.Linear) and not isinstance(layer, FixedShortcut)
    }


def _figures(weight: torch.Tensor) -> dict[str, int]:
    return {"width": len(weight), "weights": weight.numel(), "nonzero": int(torch.count_nonzero(weight))}
