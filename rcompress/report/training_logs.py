"""Learning curves of the runs whose logs lie beside the records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rcompress.artifacts.files import require_file
from rcompress.artifacts.json_text import parse_json
from rcompress.artifacts.records import files_below
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
        found += files_below(source, SUFFIX) if source.is_dir() else [source] if is_log(source) else []
    return list(dict.fromkeys(found))


def is_log(path: Path) -> bool:
    """Whether a file is one by its name."""
    return path.name.endswith(SUFFIX)


def read_logs(paths: Sequence[Path]) -> dict[str, list[Row]]:
    """By run, one mapping per epoch as `rcompress train` wrote it.

    Raises:
        RcompressError: a file is missing or holds anything else.
    """
    return {name: read_log(path) for path, name in run_names(paths).items()}


def read_log(path: Path) -> list[Row]:
    """One run's epochs; see `read_logs`."""
    try:
        lines = require_file(path).read_text("utf-8").splitlines()
        epochs = [_numbers(parse_json(line)) for line in lines]
    except (ValueError, OverflowError):
        raise RcompressError(
            path, "is no log of a training run", "name the .log.jsonl that rcompress train wrote"
        ) from None
    return sorted(epochs, key=lambda epoch: epoch["epoch"])


def run_names(paths: Sequence[Path]) -> dict[Path, str]:
    """What each log's run is called: its file's name, after as many folders as tell it from others of that name."""
    parts = {path: (*path.parts[:-1], path.name.removesuffix(SUFFIX)) for path in paths}
    ends = Counter(whole[start:] for whole in parts.values() for start in range(len(whole)))

    def name(whole: tuple[str, ...]) -> str:
        unique = (whole[start:] for start in reversed(range(len(whole))) if ends[whole[start:]] == 1)
        return str(printable("/".join(next(unique, whole))))

    return {path: name(whole) for path, whole in parts.items()}


def training_plots(logs: Logs) -> list[Plot]:
    """Loss, and accuracy, over the epochs; of more runs than there are colours, the first."""
    shown = dict(list(logs.items())[:SERIES_MOST])
    plots = []
    for name, title, figure, label in AXES:
        lines = [line for run, epochs in shown.items() for line in _series(run, epochs, figure, label)]
        if lines:
            said = [f"{len(shown)} of {len(logs)} runs"] if len(shown) < len(logs) else []
            chart, legend = curves(lines, "epoch", label), series_colours(line.label for line in lines)
            plots.append(Plot(name, title, [*said, READING], chart, legend=legend))
    return plots


def _series(run: str, epochs: Sequence[Row], figure: str, label: str) -> list[Series]:
    """Of both splits; what a hover shows is called the same in both."""
    series = []
    for split in ("validation", "train"):
        key = f"{split}_{figure}"
        points = [
            {"x": epoch["epoch"], "y": epoch[key], "epoch": epoch["epoch"], label: significant(epoch[key], 4)}
            for epoch in epochs
            if key in epoch
        ]
        series += [Series(run, points, dashed=split == "train")] if points else []
    return series


def _numbers(epoch: object) -> Row:
    """One line's finite figures; a loss that diverged leaves a gap."""
    if not isinstance(epoch, dict) or not isinstance(epoch.get("epoch"), int):
        raise ValueError
    return {
        str(name): value
        for name, value in epoch.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
