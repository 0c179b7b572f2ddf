"""Reading and writing files so that nothing is ever half there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rcompress.errors import RcompressError


def require_file(path: Path) -> Path:
    """Return ``path`` if it is a non-empty file that can be read.

    Raises:
        RcompressError: it is missing, a folder, empty, or not readable.
    """
    if not path.exists():
        raise RcompressError(path, "no such file", "check the path")
    if path.is_dir():
        raise RcompressError(path, "is a folder", "name a file in it")
    if not os.access(path, os.R_OK):
        raise RcompressError(path, "cannot be read", "check its permissions")
    if path.stat().st_size == 0:
        raise RcompressError(path, "is empty (0 bytes)", "write it again")
    return path


def require_output(path: Path, inputs: Iterable[Path] = ()) -> Path:
    """Return ``path`` if a file can be put there; called before any work is done.

    Raises:
        RcompressError: it is one of ``inputs``, a folder, or lies where nothing can be written.
    """
    for source in inputs:
        if path.resolve() == source.resolve():
            raise RcompressError(path, "is also the input", "choose another output with -o")
    if path.is_dir():
        raise RcompressError(path, "is a folder", "name a file with -o")
    if path.exists() and not path.is_file():
        raise RcompressError(
            path, "is a device or pipe, which cannot be replaced whole", "name a file with -o"
        )
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, probe = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
    except (FileExistsError, NotADirectoryError):
        raise RcompressError(folder, "is a file, not a folder", "choose another output with -o") from None
    except OSError as error:
        raise RcompressError(
            folder, f"cannot be written to ({error.strerror})", "choose another output with -o"
        ) from None
    os.close(descriptor)
    Path(probe).unlink()
    return path


def require_checkpoint_output(path: Path, inputs: Iterable[Path] = ()) -> Path:
    """As `require_named_output`, for a checkpoint."""
    return require_named_output(path, "checkpoint", ".pth", inputs)


def require_named_output(path: Path, kind: str, suffix: str, inputs: Iterable[Path] = ()) -> Path:
    """As `require_output`, for a kind of file whose suffix decides how every command reads it.

    Raises:
        RcompressError: as there, or its suffix is another.
    """
    if path.suffix != suffix and not path.is_dir():
        raise RcompressError(path, f"is no name for a {kind}", f"call it {path.with_suffix(suffix).name}")
    return require_output(path, inputs)


def write_atomic(path: Path, content: bytes) -> Path:
    """Put ``content`` at ``path`` whole or not at all (temporary file beside it, fsync, rename).

    Raises:
        RcompressError: the disk is full or the folder cannot be written to; the old file, if any, stays.
    """
    temporary, target = None, path.resolve()  # of a link, what it points to is replaced
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=target.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        os.replace(temporary, target)  # noqa: PTH105 - the word every reader knows for this
    except OSError as error:
        raise RcompressError(
            path, f"cannot be written ({error.strerror})", "free some space or choose another output with -o"
        ) from None
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
