"""Where activation ranges come from: training images, or a cache of earlier ranges; never random data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rcompress.artifacts.spec import ModelSpec
from rcompress.data import Split, balanced_indices, check_matches, dataset_for, input_batches
from rcompress.errors import RcompressError
from rcompress.progress import SILENT, Progress

BATCH_SIZE = 32


@dataclass(frozen=True)
class CalibrationChoice:
    """What ``--calib`` names: a dataset and how many images, or a cache."""

    dataset: str | None
    images: int
    cache: Path | None = None


@dataclass(frozen=True)
class CalibrationImages:
    """Class-balanced images of a training split, ready for one network."""

    dataset: str
    split: Split
    spec: ModelSpec

    def __len__(self) -> int:
        return len(self.split)

    def batches(self) -> Iterator[Tensor]:
        """Network inputs, in batches of `BATCH_SIZE`."""
        for images, _ in input_batches(self.split, self.spec.preprocessing, BATCH_SIZE):
            yield images


def parse_choice(text: str | None, images: int) -> CalibrationChoice:
    """``cifar10``, ``cifar10:512``, ``imagefolder:DIR``, ``imagefolder:DIR:512`` or ``cache.json``.

    Args:
        text: the value of ``--calib``; None: the dataset that the model names.
        images: how many where ``text`` does not say.

    Raises:
        RcompressError: ``text`` asks for no images.
    """
    if text is None:
        return CalibrationChoice(None, images)
    if text.endswith(".json"):
        return CalibrationChoice(None, 0, Path(text))
    name, colon, count = text.rpartition(":")
    if colon and count.isdigit():
        if int(count) == 0:
            raise RcompressError(text, "asks for no images", "calibrate with a few hundred")
        return CalibrationChoice(name, int(count))
    return CalibrationChoice(text, images)


def open_images(
    choice: CalibrationChoice,
    spec: ModelSpec,
    subject: Path,
    data_dir: Path | None,
    seed: int,
    progress: Progress = SILENT,
) -> CalibrationImages:
    """Images for calibrating the network that ``spec`` describes.

    Raises:
        RcompressError: no dataset is known, or it contradicts the network.
    """
    preprocessing = spec.preprocessing
    name = choice.dataset or preprocessing.dataset
    if name is None:
        raise RcompressError(
            subject, "names no dataset to calibrate with", "name one: --calib imagefolder:DIR"
        )
    dataset = dataset_for(subject, preprocessing, name, data_dir)
    try:
        check_matches(dataset, subject, preprocessing.input_size, spec.num_classes)
    except RcompressError as error:
        raise RcompressError(error.subject, error.fault, "name fitting images with --calib") from None
    if preprocessing.class_names and preprocessing.class_names != dataset.class_names:
        progress.note(f"warning: the classes of {name} have other names than those of {subject.name}")
    train = dataset.split("train")
    chosen = balanced_indices(train.labels, min(choice.images, len(train)), seed)
    return CalibrationImages(name, train.subset(chosen), spec)
