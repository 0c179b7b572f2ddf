"""Checkpoints: ``{"format": "rcompress/1", "model": {...}, "state_dict": {...}}``, opened without running code.

Weights of few distinct values may stand there as codes (``packed`` in place of ``state_dict``).
"""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rcompress.artifacts.files import require_file, sha256_of, write_atomic
from rcompress.artifacts.packing import pack, packed_bytes, unpack
from rcompress.artifacts.spec import FORMAT, ModelSpec, SpecError
from rcompress.errors import RcompressError

PROGRAM_ENTRIES = ("constants.pkl", "archive_format")
"""What the archives of TorchScript and torch.export hold beside tensors."""


UNREADABLE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    zipfile.BadZipFile,
)
"""What torch and zipfile raise for damaged bytes."""


class ForeignCheckpointError(RcompressError):
    """A file that holds weights, but not one of ours; ``state_dict`` lets a higher room guess what they are."""

    def __init__(self, path: Path, state_dict: dict[str, Tensor]) -> None:
        self.path = path
        self.state_dict = state_dict
        remedy = f"import it first: rcompress import {path} --arch NAME --dataset NAME"
        super().__init__(path, "is not an rcompress checkpoint", remedy)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: description, dense tensors by name, the file's own SHA-256.

    ``packed_bytes`` is what the weights take where they are stored as codes, None where they are stored densely.
    """

    path: Path
    spec: ModelSpec
    state_dict: dict[str, Tensor]
    sha256: str
    packed_bytes: int | None = None


def write_checkpoint(
    path: Path, spec: ModelSpec, state_dict: Mapping[str, Tensor], packed: bool = False
) -> Path:
    """Write `checkpoint_bytes` atomically."""
    return write_atomic(path, checkpoint_bytes(spec, state_dict, packed))


def checkpoint_bytes(spec: ModelSpec, state_dict: Mapping[str, Tensor], packed: bool = False) -> bytes:
    """A checkpoint; every tensor is cloned to the CPU first, because a view would save its whole storage.

    Args:
        packed: store each tensor in its smallest lossless coding: for weights of few distinct values.
    """
    if packed:
        weights: dict[str, Any] = {"packed": pack(state_dict)}
    else:
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state_dict.items()}
        weights = {"state_dict": tensors}
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "model": spec.to_dict(), **weights}, buffer)
    return buffer.getvalue()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one of our checkpoints.

    Raises:
        ForeignCheckpointError: it holds weights, but was not written by rcompress.
        RcompressError: missing, truncated, holding code, or no checkpoint at all.
    """
    content = load_tensors(path)
    if not (isinstance(content, dict) and content.get("format") == FORMAT):
        state = unwrap_state_dict(content)
        if state is not None:
            raise ForeignCheckpointError(path, state)
        raise RcompressError(
            path, "is not an rcompress checkpoint", "name a checkpoint that holds a state_dict"
        )
    try:
        spec = ModelSpec.from_dict(content.get("model"))
        packed = content.get("packed")
        state_dict = checked_tensors(content.get("state_dict")) if packed is None else unpack(packed)
    except SpecError as error:
        raise RcompressError(path, str(error), "write it again with rcompress") from None
    return Checkpoint(
        path, spec, state_dict, sha256_of(path), None if packed is None else packed_bytes(packed)
    )


def load_tensors(path: Path) -> Any:
    """Open any PyTorch file of tensors and primitives; code in it is refused, never run.

    Raises:
        RcompressError: not a PyTorch file, truncated, or holding anything but tensors and primitives.
    """
    require_file(path)
    _refuse_archives(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of foreign pickle protocols: what cannot be read fails below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            raise RcompressError(
                path,
                "holds Python objects, which could run code when opened",
                "save its state_dict alone: torch.save(model.state_dict(), FILE)",
            ) from None
        raise RcompressError(path, "is truncated or not a PyTorch file", "copy or write it again") from None
    except UNREADABLE:
        raise RcompressError(path, "is truncated or not a PyTorch file", "copy or write it again") from None


def checked_tensors(value: object) -> dict[str, Tensor]:
    """A state dict whose tensors really hold as many bytes as their shapes claim.

    Raises:
        SpecError: it is no mapping of names to dense tensors, or a shape is larger than its storage.
    """
    if not isinstance(value, Mapping) or not value:
        raise SpecError("it has no state_dict")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise SpecError(f"state_dict entry {name!r} is not a dense tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise SpecError(f"tensor {name!r} claims more values than the file holds")
    return dict(value)


def unwrap_state_dict(content: object) -> dict[str, Tensor] | None:
    """The tensors of a foreign checkpoint: plain, or under a usual key, with a ``module.`` prefix removed."""
    if not isinstance(content, Mapping):
        return None
    wrappers = ("state_dict", "model_state_dict", "model", "net")
    inner = next((content[key] for key in wrappers if isinstance(content.get(key), Mapping)), content)
    if not inner or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in inner.items()):
        return None
    try:
        checked_tensors(inner)
    except SpecError:
        return None
    prefix = "module."
    parallel = all(name.startswith(prefix) for name in inner)
    return {name[len(prefix) :] if parallel else name: tensor for name, tensor in inner.items()}


def _refuse_archives(path: Path) -> None:
    """Refuse programs, which are code, and entries that would inflate: PyTorch stores them uncompressed."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except UNREADABLE:
        raise RcompressError(path, "is truncated or damaged", "copy or write it again") from None
    if any(entry.filename.endswith(PROGRAM_ENTRIES) for entry in entries):
        raise RcompressError(
            path,
            "is a PyTorch program, code that is not run here",
            "use the .pth or .onnx that it was made from",
        )
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise RcompressError(path, "would unpack to more than its size", "do not trust this file")
