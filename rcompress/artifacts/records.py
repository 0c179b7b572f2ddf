"""Result records: one JSON object per measurement, one vocabulary, units in the names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rcompress.artifacts.files import require_file, write_atomic
from rcompress.artifacts.json_text import parse_json
from rcompress.artifacts.machine import machine_summary, package_versions
from rcompress.errors import RcompressError

SCHEMA = "rcompress-result/1"
SUFFIX = ".result.json"
FIELDS: dict[str, type] = {
    "kind": str,
    "artifact": str,
    "sha256": str,
    "metrics": dict,
    "context": dict,
    "lineage": list,
    "notes": list,
    "machine": dict,
    "versions": dict,
}


@dataclass(frozen=True)
class Record:
    """One measurement of one artifact.

    Attributes:
        kind: ``train``, ``eval``, ``bench``, ``prune``, ...
        artifact: the measured file's name.
        sha256: of that file.
        metrics: ``top1_percent``, ``top5_percent``, ``loss``, ``latency_p50_ms``, ``throughput_images_per_s``,
            ``size_bytes``, ``weights_bytes``, ``parameters``, ``nonzero_parameters``, ``nonzero_bits``, ``macs``,
            ``bit_operations`` (each MAC as often as its wider operand has bits), ``peak_memory_bytes``,
            ``train_seconds``, ``epoch_seconds``, ``train_peak_memory_bytes`` (trained on a GPU:
            ``train_peak_gpu_memory_bytes``), ``energy_j_per_image``; spreads as ``..._std``, intervals as
            ``..._low`` and ``..._high``. Absent means not measured.
        context: ``device``, ``backend``, ``precision``, ``threads``, ``batch_size``, ``dataset``, ``split``,
            ``images``, ... whatever the figures depend on.
        lineage: the artifact's history (`Step` as a mapping), oldest first.
        notes: what a reader of the figures must know.
    """

    kind: str
    artifact: str
    sha256: str
    metrics: dict[str, Any]
    context: dict[str, Any] = field(default_factory=dict)
    lineage: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=machine_summary)
    versions: dict[str, str] = field(default_factory=package_versions)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object, with its schema's name."""
        return {"schema": SCHEMA, **asdict(self)}


def write_records(path: Path, records: Sequence[Record]) -> Path:
    """Write ``{"schema": ..., "records": [...]}`` atomically."""
    content = {"schema": SCHEMA, "records": [record.to_dict() for record in records]}
    return write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())


def read_records(path: Path) -> list[Record]:
    """The records of one file.

    Raises:
        RcompressError: missing, not JSON, or not of our schema.
    """
    require_file(path)
    try:
        content = parse_json(path.read_text())
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise ValueError("no rcompress records")
        return [_record(entry) for entry in content["records"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RcompressError(
            path, f"holds no result records ({error})", "name a file written by rcompress eval or bench"
        ) from None


def find_record_files(sources: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Files to read and files passed over: a folder stands for every ``*.result.json`` below it.

    Of the files named one by one, any ``.json`` of our schema counts, so that ``report *.json`` passes over
    calibrations and sidecars.
    """
    found: list[Path] = []
    skipped: list[Path] = []
    for source in sources:
        if source.is_dir():
            found += files_below(source, SUFFIX)
        elif source.name.endswith(SUFFIX) or not source.exists() or _holds_records(source):
            found.append(source)
        else:
            skipped.append(source)
    return list(dict.fromkeys(found)), skipped


def files_below(folder: Path, ending: str) -> list[Path]:
    """The files below ``folder`` whose names end so, sorted; a folder that goes meanwhile has none."""
    return sorted(
        Path(parent, name) for parent, _, names in os.walk(folder) for name in names if name.endswith(ending)
    )


def _holds_records(path: Path) -> bool:
    if path.suffix != ".json":
        return False
    try:
        content = parse_json(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("schema") == SCHEMA


def _record(entry: dict[str, Any]) -> Record:
    for name, kind in FIELDS.items():
        if not isinstance(entry.get(name, kind()), kind):
            raise ValueError(f"{name} is no {kind.__name__}")
    return Record(**{key: value for key, value in entry.items() if key != "schema"})
