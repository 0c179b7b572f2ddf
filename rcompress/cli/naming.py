"""Default output names: hints for people; the metadata inside decides."""

from __future__ import annotations

from pathlib import Path


def derived(source: Path, tag: str = "", suffix: str | None = None) -> Path:
    """``r20.pth`` with tag ``pruned60`` becomes ``r20-pruned60.pth`` in the same folder."""
    stem = source.name.removesuffix(source.suffix)
    return source.with_name(f"{stem}{'-' + tag if tag else ''}{suffix or source.suffix}")


def record_name(name: str, kind: str) -> Path:
    """Where a result record goes by default: ``r20.pth.eval.result.json`` in the folder one works in."""
    return Path(f"{name}.{kind}.result.json")


def beside(path: Path, ending: str) -> Path:
    """A sidecar's name: ``r20.pth`` and ``.result.json`` give ``r20.result.json`` in the same folder."""
    return path.with_name(path.name.removesuffix(path.suffix) + ending)


def file_stem(arch: str) -> str:
    """A file's name from an architecture's, which may be ``package.module:callable``."""
    return arch.replace(":", "-").replace(".", "-")
