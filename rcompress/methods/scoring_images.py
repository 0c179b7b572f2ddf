"""The training images by which channels are scored."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from rcompress.artifacts.spec import Preprocessing
from rcompress.data import Dataset, balanced_indices, input_batches

IMAGES, BATCH = 512, 64


def scoring_batches(
    dataset: Dataset, preprocessing: Preprocessing, seed: int, images: int = IMAGES
) -> Iterator[tuple[Tensor, Tensor]]:
    """Network inputs (n, C, H, W) and labels (n,) of ``images`` training images, evenly over the classes.

    For imported networks too: scores choose no hyperparameter, and no image is scored on that decides anything else.
    """
    train = dataset.split("train")
    chosen = train.subset(balanced_indices(train.labels, min(images, len(train)), seed))
    return input_batches(chosen, preprocessing, BATCH)
