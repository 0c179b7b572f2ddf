"""What gives accuracy back without training: BatchNorm statistics measured anew after weights were removed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.data import Dataset, Split, balanced_indices, normalize
from rcompress.progress import SILENT, Progress
from rcompress.training.loop import validate
from rcompress.training.settings import Settings

REESTIMATION_IMAGES, REESTIMATION_BATCH = 2000, 200


@dataclass(frozen=True)
class Recovery:
    """Top-1 accuracy in percent, on the split for choices, before and after `reestimate_batchnorm`."""

    before_percent: float
    after_percent: float

    def metrics(self) -> dict[str, float]:
        """For a lineage step."""
        return {
            "top1_percent_before_reestimation": self.before_percent,
            "top1_percent_after_reestimation": self.after_percent,
        }

    def __str__(self) -> str:
        change = self.after_percent - self.before_percent
        return (
            f"BatchNorm re-estimated: {self.before_percent:.2f} % -> {self.after_percent:.2f} % "
            f"({change:+.2f} points) on the split for choices"
        )


def recover(
    module: nn.Module, spec: ModelSpec, dataset: Dataset, settings: Settings, progress: Progress = SILENT
) -> Recovery | None:
    """`reestimate_batchnorm` on ``dataset``'s training split, with its effect; None where there is no BatchNorm.

    ``module`` is moved to the device of ``settings`` and left there, in evaluation mode.
    """
    module.to(settings.device).to(memory_format=torch.channels_last)
    judges = dataset.split(spec.choice_split).on(settings.device)
    before = validate(module, judges, spec.preprocessing, settings, progress)
    train = dataset.split("train").on(settings.device)
    if not reestimate_batchnorm(module, train, spec.preprocessing, settings, progress=progress):
        return None
    after = validate(module, judges, spec.preprocessing, settings, progress)
    return Recovery(before.top1_percent, after.top1_percent)


def reestimate_batchnorm(
    module: nn.Module,
    split: Split,
    preprocessing: Preprocessing,
    settings: Settings,
    images: int = REESTIMATION_IMAGES,
    progress: Progress = SILENT,
) -> bool:
    """Replace the running statistics by the plain mean over batches of training images (Li et al. 2020, EagleEye).

    Every batch counts alike, whatever the layers' momentum. FP32; images are not augmented; all other layers
    (dropout) stay as in evaluation. Weights, momentum, modes and the device of ``module`` are left as they were.

    Args:
        module: any network; its BatchNorm buffers are changed in place.
        split: training images, of which ``images`` are taken evenly over the classes (all, where there are fewer).
        settings: their seed chooses the images.

    Returns:
        False where the network has no BatchNorm with running statistics, so that nothing was done.
    """
    layers = [
        part for part in module.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None
    ]
    if not layers:
        return False
    chosen = split.subset(balanced_indices(split.labels, min(images, len(split)), settings.seed))
    batch_size = min(REESTIMATION_BATCH, len(chosen))
    modes = {part: part.training for part in module.modules()}
    momenta = {layer: layer.momentum for layer in layers}
    try:
        module.eval()
        for layer in layers:
            layer.train()
            layer.reset_running_stats()
            layer.momentum = None  # PyTorch's word for a cumulative average
        _run(module, chosen, preprocessing, batch_size, progress)
    finally:
        for part, mode in modes.items():
            part.training = mode
        for layer, momentum in momenta.items():
            layer.momentum = momentum
    return True


@torch.no_grad()
def _run(
    module: nn.Module, split: Split, preprocessing: Preprocessing, batch_size: int, progress: Progress
) -> None:
    device = next(module.parameters()).device
    progress.start("re-estimating BatchNorm", len(split) // batch_size * batch_size)
    for images, labels in split.batches(batch_size):
        if len(labels) == batch_size:  # a smaller last batch would count as much as a whole one
            inputs = normalize(images.to(device), preprocessing)
            module(inputs.contiguous(memory_format=torch.channels_last))
            progress.advance(batch_size)
