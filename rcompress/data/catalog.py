"""Datasets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import platformdirs
import torch

from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.data.dataset import Augmentation, Dataset, MemorySource, Source, Split, once
from rcompress.data.folder import FolderSource, class_folders, folder_source, training_source
from rcompress.data.memory import digits_source, parquet_source, torchvision_cifar_source
from rcompress.data.names import CIFAR10_CLASSES, CIFAR100_CLASSES
from rcompress.data.split import carve
from rcompress.errors import RcompressError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NATURAL = Augmentation(crop_padding=4, flip=True)
DEFAULT_FOLDER_SIZE = 224
RESIZE_RATIO = 256 / 224  # the usual margin around the centre crop, from this side length on:
RESIZE_FROM = 128
NAMES = ("cifar10", "cifar100", "tiny-imagenet", "digits", "imagefolder:PATH", "parquet:PATH")


def open_dataset(name: str, data_dir: Path | None = None, image_size: int | None = None) -> Dataset:
    """Open a dataset by name; its images are read when a split is asked for.

    Args:
        name: one of `NAMES`.
        data_dir: the root under which the sets lie, by default the user's cache folder.
        image_size: side of the square inputs of ``imagefolder`` sets (224).

    Raises:
        RcompressError: the name is unknown or the data are not there.
    """
    kind, _, path = name.partition(":")
    openers: dict[str, Callable[[], Dataset]] = {
        "digits": _digits,
        "cifar10": lambda: _cifar("cifar10", _root(data_dir)),
        "cifar100": lambda: _cifar("cifar100", _root(data_dir)),
        "tiny-imagenet": lambda: _tiny_imagenet(_root(data_dir)),
        "imagefolder": lambda: _imagefolder(name, Path(path), image_size or DEFAULT_FOLDER_SIZE),
        "parquet": lambda: _parquet(name, Path(path)),
    }
    if kind not in openers or bool(path) != (kind in ("imagefolder", "parquet")):
        raise RcompressError(name, "unknown dataset", f"choose one of {', '.join(NAMES)}")
    dataset = openers[kind]()
    if image_size not in (None, dataset.input_size[1]):
        raise RcompressError(
            name, f"its images are {dataset.input_size[1]} pixels wide", "leave --image-size out"
        )
    return dataset


def dataset_for(
    subject: Path, preprocessing: Preprocessing, name: str | None = None, data_dir: Path | None = None
) -> Dataset:
    """The dataset called ``name``, by default the one that ``preprocessing`` names, at the size that it gives.

    Raises:
        RcompressError: neither names one, or the data are not there; ``subject`` is the model file.
    """
    chosen = name or preprocessing.dataset
    if chosen is None:
        raise RcompressError(subject, "names no dataset", "name one with --dataset")
    size = preprocessing.input_size[1] if chosen.startswith("imagefolder:") else None
    return open_dataset(chosen, data_dir, size)


def default_data_dir() -> Path:
    """The user's cache folder for datasets."""
    return Path(platformdirs.user_cache_dir("rcompress")) / "data"


def _root(data_dir: Path | None) -> Path:
    root = data_dir or default_data_dir()
    if data_dir is not None and not root.is_dir():
        raise RcompressError(
            root, "no such folder", "give --data-dir the folder under which the datasets lie"
        )
    return root


def _digits() -> Dataset:
    return Dataset(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        input_size=(3, 32, 32),
        mean=(0.3053,) * 3,
        std=(0.3272,) * 3,
        train_source=once(lambda: digits_source(train=True)),
        test_source=once(lambda: digits_source(train=False)),
        augmentation=Augmentation(crop_padding=2),
    )


def _cifar(name: str, root: Path) -> Dataset:
    ten = name == "cifar10"
    return Dataset(
        name=name,
        class_names=CIFAR10_CLASSES if ten else CIFAR100_CLASSES,
        input_size=(3, 32, 32),
        mean=(0.4914, 0.4822, 0.4465) if ten else (0.5071, 0.4865, 0.4409),
        std=(0.2470, 0.2435, 0.2616) if ten else (0.2673, 0.2564, 0.2762),
        train_source=once(lambda: _cifar_source(name, root, train=True)),
        test_source=once(lambda: _cifar_source(name, root, train=False)),
        augmentation=NATURAL,
    )


def _cifar_source(name: str, root: Path, train: bool) -> Source:
    files = sorted((root / name).glob(f"{'train' if train else 'test'}-*.parquet"))
    if files:
        return parquet_source(files)
    folder = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    try:
        root.mkdir(parents=True, exist_ok=True)
        return torchvision_cifar_source(name, root, train)
    except (RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise RcompressError(
            root,
            f"has neither {name}/*.parquet nor a whole {folder}/, and downloading failed ({reason})",
            "put one of them there, or name their folder with --data-dir",
        ) from None


def _tiny_imagenet(root: Path) -> Dataset:
    folder = root / "tiny-imagenet-200"
    if not (folder / "train").is_dir():
        raise RcompressError(folder, "no such folder", "unpack tiny-imagenet-200.zip under --data-dir")
    names = class_folders(folder / "train")
    return Dataset(
        name="tiny-imagenet",
        class_names=names,
        input_size=(3, 64, 64),
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2770, 0.2691, 0.2821),
        train_source=once(lambda: training_source(folder / "train", names, 64, 64)),
        test_source=once(lambda: _tiny_imagenet_test(folder / "val", names)),
        augmentation=NATURAL,
    )


def _tiny_imagenet_test(folder: Path, names: tuple[str, ...]) -> FolderSource:
    """The labelled validation images, listed in ``val_annotations.txt`` (the official test has no labels)."""
    listing = folder / "val_annotations.txt"
    if not listing.is_file():
        raise RcompressError(listing, "no such file", "unpack tiny-imagenet-200.zip again")
    number = {name: label for label, name in enumerate(names)}
    try:
        rows = [line.split("\t")[:2] for line in listing.read_text().splitlines() if line]
        files = tuple(folder / "images" / Path(name).name for name, _ in rows)
        labels = torch.tensor([number[label] for _, label in rows])
    except (ValueError, KeyError) as error:
        raise RcompressError(
            listing,
            f"has a line that names no image and class ({error})",
            "unpack tiny-imagenet-200.zip again",
        ) from None
    return FolderSource(files, labels, 64, 64)


def _imagefolder(name: str, root: Path, size: int) -> Dataset:
    if not root.is_dir():
        raise RcompressError(root, "no such folder", "give imagefolder:PATH a folder of class folders")
    train = root / "train" if (root / "train").is_dir() else root
    test = next((root / part for part in ("test", "val") if (root / part).is_dir() and train != root), None)
    names = class_folders(train)
    if not names:
        raise RcompressError(root, "holds no class folders", "arrange the images as train/CLASS/IMAGE")
    resize = round(size * RESIZE_RATIO) if size >= RESIZE_FROM else size
    everything = once(lambda: training_source(train, names, size, resize))
    return Dataset(
        name=name,
        class_names=names,
        input_size=(3, size, size),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        train_source=everything if test else once(lambda: _part(everything(), test=False)),
        test_source=once(
            lambda: folder_source(test, names, size, resize) if test else _part(everything(), test=True)
        ),
        augmentation=Augmentation(flip=True),
        resize=resize,
    )


def _part(source: Source, test: bool) -> FolderSource:
    """A folder without a test part: a fixed, class-balanced fifth becomes it."""
    assert isinstance(source, FolderSource)
    rest, part = carve(source.labels, 0.2)
    chosen = part if test else rest
    files = tuple(source.files[index] for index in chosen.tolist())
    return FolderSource(files, source.labels[chosen], source.size, source.resize)


def _parquet(name: str, root: Path) -> Dataset:
    train, test = (sorted(root.glob(f"{part}*.parquet")) for part in ("train", "test"))
    test = test or sorted(root.glob("val*.parquet"))
    if not train or not test:
        raise RcompressError(
            root, "holds no train*.parquet and test*.parquet", "give parquet:PATH such a folder"
        )
    train_source, test_source = once(lambda: parquet_source(train)), once(lambda: parquet_source(test))
    first = train_source()
    assert isinstance(first, MemorySource)
    pixels = first.images[:: max(1, len(first.images) // 1000)].float().div(255)
    classes = int(first.labels.max()) + 1
    return Dataset(
        name=name,
        class_names=tuple(str(label) for label in range(classes)),
        input_size=(3, first.images.shape[2], first.images.shape[3]),
        mean=tuple(round(v, 4) for v in pixels.mean((0, 2, 3)).tolist()),
        std=tuple(max(round(v, 4), 1e-3) for v in pixels.std((0, 2, 3)).tolist()),
        train_source=train_source,
        test_source=test_source,
        augmentation=NATURAL,
    )


def matching_dataset(
    subject: Path, spec: ModelSpec, name: str | None = None, data_dir: Path | None = None
) -> Dataset:
    """`dataset_for` the network that ``spec`` describes, with its classes, their names and its image size.

    Raises:
        RcompressError: as those of `dataset_for` and `check_matches`.
    """
    known = spec.preprocessing
    dataset = dataset_for(subject, known, name, data_dir)
    check_matches(dataset, subject, known.input_size, spec.num_classes, known.class_names)
    return dataset


def check_matches(
    dataset: Dataset,
    subject: Path,
    input_size: tuple[int, int, int],
    num_classes: int,
    class_names: tuple[str, ...] = (),
) -> None:
    """Refuse data that contradict the model file ``subject``; ``class_names`` empty: it names none.

    Raises:
        RcompressError: the number of classes, their names or the image size differ.
    """
    if len(dataset.class_names) != num_classes:
        raise RcompressError(
            subject,
            f"has {num_classes} outputs, but {dataset.name} has {len(dataset.class_names)} classes",
            "name the dataset it was trained on with --dataset",
        )
    if class_names and class_names != dataset.class_names:
        index = next(
            i
            for i, pair in enumerate(zip(class_names, dataset.class_names, strict=True))
            if len(set(pair)) > 1
        )
        raise RcompressError(
            subject,
            f"calls its class {index} {class_names[index]!r}, but {dataset.name} {dataset.class_names[index]!r}",
            "name the dataset it was trained on with --dataset",
        )
    if dataset.input_size != input_size:
        raise RcompressError(
            subject,
            f"takes images of {_size(input_size)}, but {dataset.name} has {_size(dataset.input_size)}",
            "name the dataset it was trained on with --dataset",
        )


def _size(size: tuple[int, int, int]) -> str:
    return "x".join(str(side) for side in size)


__all__ = ["NAMES", "Split", "check_matches", "default_data_dir", "matching_dataset", "open_dataset"]
