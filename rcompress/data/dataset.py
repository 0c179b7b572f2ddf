"""A dataset as the other rooms see it: named splits of labelled uint8 images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from rcompress.artifacts.spec import Preprocessing, SpecError
from rcompress.data.split import VALIDATION_FRACTION, carve
from rcompress.errors import RcompressError

SPLITS = ("train", "validation", "test", "test-a", "test-b")


class Source(Protocol):
    """Labelled images somewhere: in memory, or in files that are decoded as they are asked for."""

    @property
    def labels(self) -> Tensor:
        """int64 (N,)."""

    def batches(
        self, indices: Tensor, batch_size: int, augment: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(uint8 (n, 3, H, W), int64 (n,)) for ``indices`` in their order; ``augment`` asks a source that crops
        while it decodes to crop at random."""


@dataclass(frozen=True)
class MemorySource:
    """Images that fit in memory: uint8 (N, 3, H, W) and labels int64 (N,), on any device."""

    images: Tensor
    labels: Tensor

    def batches(
        self, indices: Tensor, batch_size: int, augment: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Source`."""
        del augment  # done in batches on the device, after normalisation
        for part in torch.split(indices.to(self.images.device), batch_size):
            yield self.images[part], self.labels[part]

    def to(self, device: torch.device) -> MemorySource:
        """The same images on ``device``."""
        return MemorySource(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Split:
    """Some images of a source, in a fixed order."""

    source: Source
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Tensor:
        """int64 (N,) of this split, on the CPU."""
        return self.source.labels.cpu()[self.indices]

    def subset(self, indices: Tensor) -> Split:
        """The images at ``indices`` of this split, in that order."""
        return Split(self.source, self.indices[indices])

    def batches(self, batch_size: int, augment: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """(uint8 (n, 3, H, W), int64 (n,)) in order; the last batch may be smaller."""
        return self.source.batches(self.indices, batch_size, augment)

    def on(self, device: torch.device) -> Split:
        """The same split; its images move to ``device`` where they are held in memory."""
        source = self.source.to(device) if isinstance(self.source, MemorySource) else self.source
        return Split(source, self.indices)


@dataclass(frozen=True)
class Augmentation:
    """What the dataset's nature allows: mirrored digits are other digits."""

    crop_padding: int = 0
    flip: bool = False


@dataclass(frozen=True)
class Dataset:
    """A dataset opened under its name.

    Attributes:
        name: as the user gave it, so that a model file can name it.
        class_names: one per label.
        input_size: (3, H, W) of its images as `Split.batches` yields them.
        mean, std: per channel, for pixels scaled to 0..1.
        train_source, test_source: open the official splits, once, when asked.
        augmentation: the default for training on it.
        resize: shorter side before the centre crop, None where images are taken as they are.
    """

    name: str
    class_names: tuple[str, ...]
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_source: Callable[[], Source]
    test_source: Callable[[], Source]
    augmentation: Augmentation = field(default_factory=Augmentation)
    resize: int | None = None

    def split(self, name: str) -> Split:
        """One of `SPLITS`: ``train`` lacks ``validation``; ``test-a`` and ``test-b`` are the halves of ``test``.

        Raises:
            RcompressError: its files are missing or damaged, or a label is of no class.
        """
        if name in ("train", "validation"):
            source = self._checked(self.train_source())
            rest, part = carve(source.labels, VALIDATION_FRACTION)
            return Split(source, part if name == "validation" else rest)
        source = self._checked(self.test_source())
        if name == "test":
            return Split(source, torch.arange(len(source.labels)))
        half_b, half_a = carve(source.labels, 0.5)
        return Split(source, {"test-a": half_a, "test-b": half_b}[name])

    def preprocessing(self) -> Preprocessing:
        """What a model trained on this dataset needs to know of it.

        Raises:
            RcompressError: no network of ours takes images of that size.
        """
        try:
            return Preprocessing(
                input_size=self.input_size,
                mean=self.mean,
                std=self.std,
                dataset=self.name,
                class_names=self.class_names,
                resize=self.resize,
            )
        except SpecError as error:
            raise RcompressError(
                self.name, str(error), "use imagefolder:PATH with a smaller --image-size"
            ) from None

    def _checked(self, source: Source) -> Source:
        outside = source.labels[(source.labels < 0) | (source.labels >= len(self.class_names))]
        if len(outside):
            raise RcompressError(
                self.name,
                f"has the label {int(outside[0])}, but its classes are 0 to {len(self.class_names) - 1}",
                "remove those images, or add their class to the training split",
            )
        return source


def once(open_source: Callable[[], Source]) -> Callable[[], Source]:
    """``open_source``, called at most once."""
    return functools.cache(open_source)
