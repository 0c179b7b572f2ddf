"""Learning curves of the runs whose logs lie beside the records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rcompress.artifacts.files import require_file
from rcompress.artifacts.json_text import parse_json
from rcompress.errors import RcompressError
from rcompress.report.curves import SERIES_MOST, Series, curves, series_colours
from rcompress.report.frame import Row
from rcompress.report.plots import Plot
from rcompress.report.text import printable, significant

SUFFIX = ".log.jsonl"
AXES = (
    ("training-loss", "Loss while training", "loss", "loss"),
    ("training-accuracy", "Accuracy while training", "top1_percent", "top-1 accuracy (%)"),
)
READING = "Solid: validation split. Dashed: training images as the network saw them, augmented."

Logs = Mapping[str, Sequence[Row]]


def find_logs(sources: Iterable[Path]) -> list[Path]:
    """The logs among ``sources``: those named, and of folders every ``*.log.jsonl`` below them."""
    found: list[Path] = []
    for source in sources:
        found += sorted(source.rglob(f"*{SUFFIX}")) if source.is_dir() else [source] if is_log(source) else []
    return list(dict.fromkeys(found))


def is_log(path: Path) -> bool:
    """Whether a file is one by its name."""
    return path.name.endswith(SUFFIX)


def read_logs(paths: Iterable[Path]) -> dict[str, list[Row]]:
    """By run, one mapping per epoch as `rcompress train` wrote it.

    Raises:
        RcompressError: a file is missing or holds anything else.
    """
    return {str(printable(path.name.removesuffix(SUFFIX))): _epochs(path) for path in paths}


def training_plots(logs: Logs) -> list[Plot]:
    """Loss, and accuracy, over the epochs; of more runs than there are colours, the first."""
    shown = dict(list(logs.items())[:SERIES_MOST])
    plots = []
    for name, title, figure, label in AXES:
        lines = [line for run, epochs in shown.items() for line in _series(run, epochs, figure)]
        if lines:
            said = [f"{len(shown)} of {len(logs)} runs"] if len(shown) < len(logs) else []
            chart, legend = curves(lines, "epoch", label), series_colours(line.label for line in lines)
            plots.append(Plot(name, title, [*said, READING], chart, legend=legend))
    return plots


def _series(run: str, epochs: Sequence[Row], figure: str) -> list[Series]:
    series = []
    for split in ("validation", "train"):
        key = f"{split}_{figure}"
        points = [
            {"x": epoch["epoch"], "y": epoch[key], "epoch": epoch["epoch"], key: significant(epoch[key], 4)}
            for epoch in epochs
            if key in epoch
        ]
        series += [Series(run, points, dashed=split == "train")] if points else []
    return series


def _epochs(path: Path) -> list[Row]:
    try:
        lines = require_file(path).read_text("utf-8").splitlines()
        epochs = [_numbers(parse_json(line)) for line in lines]
    except (ValueError, OverflowError):
        raise RcompressError(
            path, "is no log of a training run", "name the .log.jsonl that rcompress train wrote"
        ) from None
    return sorted(epochs, key=lambda epoch: epoch["epoch"])


def _numbers(epoch: object) -> Row:
    """One line's finite figures; a loss that diverged leaves a gap."""
    if not isinstance(epoch, dict) or not isinstance(epoch.get("epoch"), int):
        raise ValueError
    return {
        str(name): value
        for name, value in epoch.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
