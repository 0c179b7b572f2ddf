"""What gives accuracy back without training: BatchNorm statistics measured anew after weights were removed."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rcompress.artifacts.spec import Preprocessing
from rcompress.data import Split, balanced_indices, normalize
from rcompress.progress import SILENT, Progress
from rcompress.training.settings import Settings

REESTIMATION_IMAGES, REESTIMATION_BATCH = 2000, 200


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
