"""Training recipes: what decides the weights, by name or by option."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import nn

from rcompress.data.catalog import IMAGENET_MEAN, IMAGENET_STD
from rcompress.errors import RcompressError

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["onecycle", "cosine", "step"]
BELOW = {"momentum": 1.0, "warmup": 1.0, "label_smoothing": 1.0, "ema": 1.0}


@dataclass(frozen=True)
class Recipe:
    """Everything that, with the data and the seed, decides the trained weights.

    Attributes:
        learning_rate: its peak.
        weight_decay: on convolution and linear weights; biases and normalisation are left free.
        schedule: ``onecycle`` (linear up, linear to zero), ``cosine`` (linear up, half a cosine to zero), ``step``
            (divided by ten at 50 % and 75 %).
        warmup: share of the steps over which the rate rises.
        label_smoothing: Szegedy et al. 2016, section 7.
        mixup: alpha of Zhang et al. 2018; 0 for none.
        cutout: side of the blanked square in pixels (DeVries and Taylor 2017); 0 for none.
        ema: decay of the exponential moving average of the weights per step, which is then what is kept; 0 for none.
        mean, std: the study's own normalisation; None for the dataset's.
    """

    epochs: int = 20
    batch_size: int = 128
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.25
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "onecycle"
    warmup: float = 0.2
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutout: int = 0
    ema: float = 0.998
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.optimizer not in get_args(Optimizer) or self.schedule not in get_args(Schedule):
            raise RcompressError(
                "recipe", f"unknown {self.optimizer} or {self.schedule}", "see rcompress train -h"
            )
        for name, below in BELOW.items():
            if getattr(self, name) >= below:
                raise RcompressError(
                    "recipe", f"{name} = {getattr(self, name)} is too large", f"keep it below {below:g}"
                )

    def changed(self, **options: Any) -> Recipe:
        """This recipe with the options that were given: those that are None were not."""
        return replace(self, **{name: value for name, value in options.items() if value is not None})


HALF = (0.5, 0.5, 0.5)
STUDY = Recipe(learning_rate=0.1, schedule="cosine", warmup=0.0, ema=0.0)
RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    "finetune": Recipe(learning_rate=0.05, warmup=0.1),
    "trt-study": replace(STUDY, epochs=100, weight_decay=1e-2, mean=HALF, std=HALF),
    "cpu-study": replace(STUDY, epochs=60, label_smoothing=0.1, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "binary-connect": replace(STUDY, optimizer="adamw", learning_rate=1e-3, weight_decay=0.0),
    "iterative-10": replace(STUDY, epochs=30, optimizer="adamw", learning_rate=1e-4),
}


def learning_rate_factor(recipe: Recipe, done: float) -> float:
    """The share of the peak learning rate at ``done`` (0..1) of the run."""
    if recipe.schedule == "step":
        return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
    if done < recipe.warmup:
        return max(done / recipe.warmup, 1e-3)
    falling = (done - recipe.warmup) / max(1.0 - recipe.warmup, 1e-9)
    return 1.0 - falling if recipe.schedule == "onecycle" else 0.5 * (1.0 + math.cos(math.pi * falling))


def default_groups(recipe: Recipe, module: nn.Module) -> list[dict[str, Any]]:
    """Matrices with the recipe's weight decay, vectors (biases, normalisation) without."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


def build_optimizer(
    recipe: Recipe, module: nn.Module, groups: list[dict[str, Any]] | None = None
) -> torch.optim.Optimizer:
    """The recipe's optimizer over ``groups``; without them over what can be trained, vectors not decayed."""
    if groups is None:
        groups = default_groups(recipe, module)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=nesterov, fused=True
    )
