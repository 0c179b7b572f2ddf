"""``NAME.sensitivity.json``: measured curves that people can read and ``prune --scope adaptive`` reads again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rcompress.artifacts.files import require_file, write_atomic
from rcompress.artifacts.json_text import parse_json
from rcompress.artifacts.machine import machine_summary, package_versions
from rcompress.errors import RcompressError
from rcompress.search.sensitivity import Curve, Point

FORMAT = "rcompress-sensitivity/1"


@dataclass(frozen=True)
class Sensitivity:
    """The outcome of one measurement.

    Attributes:
        artifact: the network's file.
        sha256: of that file.
        importance: by which measure the channels were ordered.
        dataset, split, images: on what the outputs were compared.
        top1_percent: the whole network's accuracy there.
        curves: by group, in the network's order.
        machine, versions: where and with what it was measured.
    """

    artifact: str
    sha256: str
    importance: str
    dataset: str
    split: str
    images: int
    top1_percent: float
    curves: dict[str, Curve]
    machine: dict[str, Any] = field(default_factory=machine_summary)
    versions: dict[str, str] = field(default_factory=package_versions)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object, with its format's name."""
        return {"format": FORMAT, **asdict(self)}


def write_sensitivity(path: Path, found: Sensitivity) -> Path:
    """Write ``found`` as JSON, atomically."""
    return write_atomic(path, (json.dumps(found.to_dict(), indent=1) + "\n").encode())


def read_sensitivity(path: Path) -> Sensitivity:
    """Read what `write_sensitivity` wrote.

    Raises:
        RcompressError: missing, truncated, another kind of file, or with curves that make no sense.
    """
    require_file(path)
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        curves = {str(name): _curve(entry) for name, entry in content.pop("curves").items()}
        return Sensitivity(**content, curves=curves)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise RcompressError(
            path, f"is no sensitivity record ({error})", "write one with rcompress sensitivity"
        ) from None


def require_fitting(
    path: Path, found: Sensitivity, sha256: str, groups: Mapping[str, int], importance: str
) -> None:
    """Check that ``found``, read from ``path``, is of the network with this hash and these groups (name: width).

    Raises:
        RcompressError: it is of another file, lacks a group, or narrowed the groups by another ``importance``.
    """
    widths = {name: curve.width for name, curve in found.curves.items()}
    if found.sha256 != sha256 or any(widths.get(name) != width for name, width in groups.items()):
        raise RcompressError(
            path, f"is of another network ({found.artifact})", "measure this one with rcompress sensitivity"
        )
    if found.importance != importance:
        raise RcompressError(
            path,
            f"removed channels by {found.importance}, not {importance}",
            f"add --importance {found.importance}, or measure again with {importance}",
        )


def _curve(entry: dict[str, Any]) -> Curve:
    points = tuple(
        Point(int(p["kept"]), float(p["divergence"]), float(p["top1_percent"])) for p in entry["points"]
    )
    curve = Curve(int(entry["width"]), tuple(map(str, entry["layers"])), points)
    kept = [curve.width, *(point.kept for point in points)]
    if kept != sorted(set(kept), reverse=True) or kept[-1] < 1:
        raise ValueError("the widths of a curve do not fall")
    if any(not point.divergence > -1e-3 for point in points):
        raise ValueError("a divergence is negative or no number")
    return curve
