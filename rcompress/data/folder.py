"""Sets too large for memory: class folders of image files, decoded by worker processes as they are asked for."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from rcompress.artifacts.machine import available_cores
from rcompress.artifacts.spec import Preprocessing
from rcompress.errors import RcompressError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
MAX_WORKERS = 16


@dataclass(frozen=True)
class FolderSource:
    """Image files with their labels; resized (shorter side) and cropped to ``size`` while decoding."""

    files: tuple[Path, ...]
    labels: Tensor
    size: int
    resize: int

    def batches(
        self, indices: Tensor, batch_size: int, augment: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Source`; with ``augment`` the crop is random in place and scale (Szegedy et al. 2015)."""
        from torchvision.transforms import v2  # takes seconds, and other sets need none of it

        crop: list[Callable[..., object]] = (
            [v2.RandomResizedCrop(self.size)]
            if augment
            else [v2.Resize(self.resize), v2.CenterCrop(self.size)]
        )
        items = _Decoded(self.files, self.labels, indices.tolist(), v2.Compose([*crop, v2.PILToTensor()]))
        own = multiprocessing.current_process().daemon  # such a process may not start others
        workers = 0 if own or len(items) <= batch_size else min(MAX_WORKERS, available_cores())
        loader = DataLoader(items, batch_size=batch_size, num_workers=workers, collate_fn=_stacked)
        for batch in loader:
            if isinstance(batch, RcompressError):
                raise batch
            yield batch


class _Decoded(TorchDataset[tuple[Tensor, int] | RcompressError]):
    """Images by position; an error in place of one that cannot be decoded.

    Raised in a worker process, PyTorch would make another error of it.
    """

    def __init__(
        self, files: tuple[Path, ...], labels: Tensor, indices: list[int], transform: Callable[..., Tensor]
    ) -> None:
        self.files, self.labels, self.indices, self.transform = files, labels, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, int] | RcompressError:
        index = self.indices[position]
        try:
            return self.transform(open_image(self.files[index])), int(self.labels[index])
        except RcompressError as error:
            return error


def _stacked(items: list[tuple[Tensor, int] | RcompressError]) -> tuple[Tensor, Tensor] | RcompressError:
    """A batch, or the first error in it."""
    images, labels = [], []
    for item in items:
        if isinstance(item, RcompressError):
            return item
        images.append(item[0])
        labels.append(item[1])
    return torch.stack(images), torch.tensor(labels)


def open_image(path: Path) -> object:
    """An image file as an RGB PIL image.

    Raises:
        RcompressError: it is missing, damaged, or no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise RcompressError(path, "no such file", "check the path") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise RcompressError(path, "is not an image that can be decoded", "remove or replace it") from None


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the sub-folders, sorted: the classes; hidden ones (``.ipynb_checkpoints``) are none."""
    return tuple(
        sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    )


def folder_source(folder: Path, class_names: tuple[str, ...], size: int, resize: int) -> FolderSource:
    """The images in ``folder/CLASS/**``, in sorted order.

    Raises:
        RcompressError: there are none, or a class folder that the training split does not have.
    """
    unknown = set(class_folders(folder)) - set(class_names)
    if unknown:
        raise RcompressError(
            folder, f"has the class {min(unknown)!r}, which training lacks", "remove or rename it"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = sorted(file for file in (folder / name).rglob("*") if _is_image(file.relative_to(folder)))
        files += found
        labels += [label] * len(found)
    if not files:
        raise RcompressError(folder, "holds no images in class folders", "arrange them as CLASS/IMAGE")
    return FolderSource(tuple(files), torch.tensor(labels), size, resize)


def training_source(folder: Path, class_names: tuple[str, ...], size: int, resize: int) -> FolderSource:
    """See `folder_source`; of the part that says which classes there are.

    Raises:
        RcompressError: a class has no images, too.
    """
    source = folder_source(folder, class_names, size, resize)
    images = source.labels.bincount(minlength=len(class_names)).tolist()
    if 0 in images:
        raise RcompressError(
            folder / class_names[images.index(0)], "is a class without images", "fill or remove that folder"
        )
    return source


def _is_image(file: Path) -> bool:
    """By its name, from the root of the classes on; hidden files are none, nor is what lies in hidden folders."""
    return file.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in file.parts)


def read_image(path: Path, preprocessing: Preprocessing) -> Tensor:
    """One image file as uint8 (1, 3, H, W): the shorter side resized, the centre cropped to the network's input.

    Raises:
        RcompressError: it is missing, damaged, or no image.
    """
    from torchvision.transforms import v2

    height, width = preprocessing.input_size[1:]
    resize = preprocessing.resize or min(height, width)
    mode = v2.InterpolationMode(preprocessing.interpolation)
    prepare = v2.Compose([v2.Resize(resize, mode), v2.CenterCrop((height, width)), v2.PILToTensor()])
    image: Tensor = prepare(open_image(path))
    return image.unsqueeze(0)
