"""``NAME.calib.json``: activation ranges that people can read and give back instead of images."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from rcompress.artifacts.files import require_file, write_atomic
from rcompress.artifacts.json_text import parse_json
from rcompress.errors import RcompressError
from rcompress.methods.calibration import Range

FORMAT = "rcompress-calib/1"


@dataclass(frozen=True)
class CalibrationCache:
    """The outcome of one calibration.

    Attributes:
        dataset: whose training images were used.
        images: how many.
        method: how thresholds were chosen (``minmax``).
        profile: the target profile, on which the thresholds of ``entropy`` and ``mse`` depend.
        graph_sha256: of the graph that was run (see `graph_hash`).
        ranges: by tensor name.
        percentile: of the method of that name.
    """

    dataset: str
    images: int
    method: str
    profile: str
    graph_sha256: str
    ranges: dict[str, Range]
    percentile: float | None = None


def write_cache(path: Path, cache: CalibrationCache) -> Path:
    """Write ``cache`` as JSON, atomically."""
    return write_atomic(path, (json.dumps({"format": FORMAT, **asdict(cache)}, indent=1) + "\n").encode())


def read_cache(path: Path) -> CalibrationCache:
    """Read what `write_cache` wrote.

    Raises:
        RcompressError: missing, truncated, another kind of file, or with ranges that make no sense.
    """
    require_file(path)
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        ranges = {str(name): _range(entry) for name, entry in content.pop("ranges").items()}
        percentile = content.pop("percentile", None)
        return CalibrationCache(
            **content, ranges=ranges, percentile=None if percentile is None else float(percentile)
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RcompressError(path, f"is no calibration cache ({error})", "calibrate again") from None


def _range(entry: dict[str, float]) -> Range:
    found = Range(float(entry["minimum"]), float(entry["maximum"]), float(entry["threshold"]))
    if not all(map(math.isfinite, (found.minimum, found.maximum, found.threshold))) or found.threshold < 0:
        raise ValueError("a range is not finite or a threshold is negative")
    return found


def ranges_for(cache: CalibrationCache, names: Iterable[str], subject: str | Path) -> dict[str, Range]:
    """The ranges of ``names`` from ``cache``.

    Raises:
        RcompressError: it lacks one: it belongs to another graph.
    """
    missing = [name for name in names if name not in cache.ranges]
    if missing:
        raise RcompressError(
            subject,
            f"has no range for {len(missing)} tensors ({missing[0]}, ...)",
            "calibrate this graph again",
        )
    return {name: cache.ranges[name] for name in names}


def graph_hash(model: onnx.ModelProto) -> str:
    """SHA-256 of the graph alone, whatever its metadata say."""
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()
