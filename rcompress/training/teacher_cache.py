"""A teacher's logits of every training image, computed once and kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from torch import Tensor

from rcompress.artifacts.files import write_atomic
from rcompress.data import Dataset, MemorySource, Split, normalize
from rcompress.data.preprocess import flip
from rcompress.errors import RcompressError
from rcompress.progress import SILENT, Progress
from rcompress.training.guidance import Batch
from rcompress.training.recipe import Recipe
from rcompress.training.teachers import Teacher

LOOKED_AT_ONCE = 500


class CachedLogits:
    """What a `Teacher` said of every training image, looked up instead of computed again.

    Args:
        teacher: who said it.
        table: float32 (variants, members, images, classes) on the device: as stored and, where images are
            mirrored, mirrored.
    """

    def __init__(self, teacher: Teacher, table: Tensor) -> None:
        self._teacher = teacher
        self._table = table

    def of(self, batch: Batch) -> Tensor:
        """See `Logits`."""
        where, variant = batch.where.to(self._table.device), batch.mirrored.long().to(self._table.device)
        return self._table[variant, :, where].transpose(0, 1)

    def identity(self) -> dict[str, Any]:
        """See `Logits`."""
        return {**self._teacher.identity(), "cached": True}


def without_crops(dataset: Dataset) -> Dataset:
    """``dataset`` with no random crops: each image is seen as stored or mirrored, so that logits can be kept."""
    return replace(dataset, augmentation=replace(dataset.augmentation, crop_padding=0))


def cached_logits(
    teacher: Teacher,
    dataset: Dataset,
    recipe: Recipe,
    folder: Path | None = None,
    progress: Progress = SILENT,
) -> CachedLogits:
    """Read the logits of ``dataset``'s training images from the cache, or compute them and keep them there.

    Args:
        teacher: whose they are.
        dataset: without random crops (`without_crops`).
        recipe: of the run to come.
        folder: where the cache lies; by default in the user's cache folder.
        progress: told of the computation.

    Raises:
        RcompressError: the augmentation makes new images every epoch, or the images do not fit in memory.
    """
    _refuse_endless(dataset, recipe)
    split = dataset.split("train")
    variants = 2 if dataset.augmentation.flip else 1
    place = (folder or _default_folder()) / f"{_key(teacher, split, variants)}.npz"
    table = _read(place, (variants, len(teacher.members), len(split)))
    if table is None:
        table = torch.stack([_answers(teacher, split, bool(v), progress) for v in range(variants)])
        _write(place, table)
    return CachedLogits(teacher, table.to(teacher.settings.device))


def _refuse_endless(dataset: Dataset, recipe: Recipe) -> None:
    named = {
        "random crops": dataset.augmentation.crop_padding > 0,
        "--mixup": recipe.mixup > 0,
        "--cutout": recipe.cutout > 0,
        "images decoded from files, cropped at random": not isinstance(
            dataset.split("train").source, MemorySource
        ),
    }
    if endless := [name for name, there in named.items() if there]:
        raise RcompressError(
            "--cache-teacher",
            f"{', '.join(endless)}: every epoch has images of its own",
            "leave --cache-teacher out",
        )


def _answers(teacher: Teacher, split: Split, mirrored: bool, progress: Progress) -> Tensor:
    """float32 (members, images, classes) on the CPU."""
    progress.start("asking the teacher", len(split))
    parts = []
    for images, labels in split.batches(LOOKED_AT_ONCE):
        inputs = normalize(images.to(teacher.settings.device), teacher.preprocessing)
        inputs = flip(inputs, torch.full((len(labels),), mirrored))
        parts.append(teacher.logits(inputs.contiguous(memory_format=torch.channels_last)).cpu())
        progress.advance(len(labels))
    return torch.cat(parts, dim=1)


def _default_folder() -> Path:
    return Path(platformdirs.user_cache_dir("rcompress")) / "teachers"


def _key(teacher: Teacher, split: Split, variants: int) -> str:
    """Of everything that decides the logits: teachers, images in their order, preprocessing, number format."""
    digest = hashlib.sha256()
    assert isinstance(split.source, MemorySource)
    for tensor in (split.source.images, split.indices):
        digest.update(tensor.contiguous().cpu().numpy().data)
    said = {
        **teacher.identity(),
        "preprocessing": asdict(teacher.preprocessing),
        "precision": teacher.settings.precision,
        "variants": variants,
    }
    digest.update(json.dumps(said, sort_keys=True).encode())
    return digest.hexdigest()[:32]


def _read(place: Path, shape: tuple[int, int, int]) -> Tensor | None:
    """The table, None where there is none that can be used."""
    unusable = contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile)
    with unusable, np.load(place, allow_pickle=False) as stored:
        table = torch.from_numpy(stored["logits"])
        if table.dtype == torch.float32 and table.dim() == 4 and tuple(table.shape[:3]) == shape:
            return table
    return None


def _write(place: Path, table: Tensor) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, logits=table.numpy())
    with contextlib.suppress(OSError, RcompressError):  # a cache that cannot be kept costs time, nothing else
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, buffer.getvalue())
