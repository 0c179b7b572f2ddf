"""Sets that fit in memory: digits, torchvision's CIFAR folders, Parquet; decoded once, then cached."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import platformdirs
import torch
import torch.nn.functional as F
from filelock import FileLock

from rcompress.artifacts.files import write_atomic
from rcompress.data.dataset import MemorySource
from rcompress.data.split import carve
from rcompress.errors import RcompressError

if TYPE_CHECKING:
    import polars as pl

DIGITS_TEST_FRACTION = 500 / 1797


def digits_source(train: bool) -> MemorySource:
    """scikit-learn's 1,797 handwritten digits, 8x8 grey enlarged to 32x32 RGB; 500 of them are the test split."""
    table = torch.from_numpy(np.loadtxt(_digits_file(), delimiter=",", dtype=np.float32))
    labels = table[:, -1].long()
    grey = table[:, :-1].div(16.0).view(-1, 1, 8, 8)
    enlarged = F.interpolate(grey, size=(32, 32), mode="bilinear").mul(255).round().to(torch.uint8)
    rest, test = carve(labels, DIGITS_TEST_FRACTION)
    chosen = rest if train else test
    return MemorySource(enlarged[chosen].expand(-1, 3, -1, -1).contiguous(), labels[chosen])


def _digits_file() -> Path:
    """The file inside scikit-learn: importing scikit-learn for it would take a second."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


def torchvision_cifar_source(name: str, root: Path, train: bool) -> MemorySource:
    """CIFAR as torchvision stores it under ``root``, downloaded where it is not there or not whole.

    Its files' hashes are checked before they are opened. Of several processes, one downloads.

    Raises:
        RuntimeError, OSError: it is not there, and cannot be downloaded.
    """
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's deprecations inside torchvision's unpickling
        try:
            stored = kind(root=str(root), train=train)
        except RuntimeError:
            with FileLock(root / f".{name}.lock"):
                stored = kind(root=str(root), train=train, download=True)
    images = torch.from_numpy(stored.data).permute(0, 3, 1, 2).contiguous()
    return MemorySource(images, torch.tensor(stored.targets))


def parquet_source(files: Sequence[Path], cache: Path | None = None) -> MemorySource:
    """Images from Parquet files in the layout of the Hugging Face hub (image struct with ``bytes``, integer label).

    Decoded images are cached in the user's cache folder, keyed by the files' names, sizes and times.

    Raises:
        RcompressError: a file is damaged, lacks such columns, has rows without a label, or holds images of different
            sizes.
    """
    folder = cache or Path(platformdirs.user_cache_dir("rcompress")) / "decoded"
    cached = folder / f"{_fingerprint(files)}.npz"
    unusable = contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile)
    with unusable, np.load(cached, allow_pickle=False) as stored:
        return MemorySource(torch.from_numpy(stored["images"]), torch.from_numpy(stored["labels"]))
    images, labels = _decode_parquet(files)
    buffer = io.BytesIO()
    np.savez(buffer, images=images, labels=labels)
    with contextlib.suppress(OSError, RcompressError):  # a cache that cannot be kept costs time, nothing else
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(cached, buffer.getvalue())
    return MemorySource(torch.from_numpy(images), torch.from_numpy(labels))


def _fingerprint(files: Sequence[Path]) -> str:
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:32]


def _decode_parquet(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, 3, H, W) and int64 (N,)."""
    from concurrent.futures import ThreadPoolExecutor

    import polars as pl

    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for file in files:
        try:
            frame = pl.read_parquet(file)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise RcompressError(
                file, f"is not readable Parquet ({_first_line(error)})", "copy it again"
            ) from None
        image_column, label_column = _columns(file, frame.schema)
        labels.append(_labels(frame[label_column], file))
        with ThreadPoolExecutor() as pool:
            images += pool.map(_decode, frame[image_column].struct.field("bytes"), [file] * len(frame))
    if len({image.shape for image in images}) != 1:
        raise RcompressError(
            files[0], "holds images of different sizes", "use imagefolder:PATH with --image-size"
        )
    return np.stack(images), np.concatenate(labels)


def _columns(file: Path, schema: object) -> tuple[str, str]:
    import polars as pl

    assert isinstance(schema, pl.Schema)
    structs = [
        name
        for name, kind in schema.items()
        if isinstance(kind, pl.Struct) and any(field.name == "bytes" for field in kind.fields)
    ]
    integers = [name for name, kind in schema.items() if kind.is_integer()]
    labels = [name for name in ("label", "fine_label") if name in integers] or integers
    if not structs or not labels:
        raise RcompressError(
            file,
            f"has no image and label columns (only {', '.join(schema)})",
            "name a set with `bytes` and `label`",
        )
    return structs[0], labels[0]


def _labels(column: pl.Series, file: Path) -> np.ndarray:
    """int64 (N,). The Hub marks what has no label by -1; of whole splits, where the answers are kept back."""
    missing = column.null_count() + int((column < 0).sum())
    if missing:
        raise RcompressError(
            file,
            f"has no label (null or below 0) in {missing:,} of {len(column):,} rows",
            "take those rows out, or the file; without test*.parquet, val*.parquet is the test split",
        )
    return column.to_numpy().astype(np.int64)


def _decode(content: bytes, file: Path) -> np.ndarray:
    """One encoded image to uint8 (3, H, W)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise RcompressError(file, "holds an image that cannot be decoded", "copy it again") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
