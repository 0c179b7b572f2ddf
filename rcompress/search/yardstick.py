"""How far a changed network is from its parent: divergence of the outputs, which needs no labels, and accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rcompress.artifacts.spec import Preprocessing
from rcompress.data import Split, normalize
from rcompress.errors import RcompressError

BATCH = 250


@dataclass(frozen=True)
class Distance:
    """What a change did.

    Attributes:
        divergence: mean over the images of KL(parent || network) of the class probabilities, in nats.
        top1_percent: accuracy of the changed network on the same images.
    """

    divergence: float
    top1_percent: float


class Yardstick:
    """The parent's outputs on some images, kept to hold other networks against.

    Args:
        parent: the network as it was, in evaluation mode; it is run once and not kept.
        split: the images, which must be ones on which choices may be made.
        preprocessing: the network's.
        device: where networks run; they must lie there.

    Raises:
        RcompressError: there are no images, or the parent's outputs are not finite.
    """

    def __init__(
        self, parent: nn.Module, split: Split, preprocessing: Preprocessing, device: torch.device
    ) -> None:
        if not len(split):
            raise RcompressError("sensitivity", "there are no images to compare on", "raise --images")
        self._preprocessing = preprocessing
        self._batches = [(images.to(device), labels.to(device)) for images, labels in split.batches(BATCH)]
        self.images = len(split)
        self._reference = [logits.log_softmax(dim=1) for logits, _ in self._outputs(parent)]
        if not all(bool(torch.isfinite(part).all()) for part in self._reference):
            raise RcompressError("sensitivity", "the network's outputs are not finite", "check its weights")
        self.parent = self.measure(parent)

    def measure(self, module: nn.Module) -> Distance:
        """The distance of ``module``, in evaluation mode; infinite where its outputs are not finite."""
        divergence, correct = 0.0, 0
        for (logits, labels), reference in zip(self._outputs(module), self._reference, strict=True):
            own = logits.log_softmax(dim=1)
            divergence += float(F.kl_div(own, reference, reduction="sum", log_target=True))
            correct += int((logits.argmax(dim=1) == labels).sum())
        mean = divergence / self.images
        return Distance(mean if mean == mean else float("inf"), 100.0 * correct / self.images)

    def _outputs(self, module: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """(logits (n, classes) float32, labels (n,)), batch by batch."""
        for images, labels in self._batches:
            with torch.inference_mode():
                inputs = normalize(images, self._preprocessing)
                yield module(inputs.contiguous(memory_format=torch.channels_last)).float(), labels
