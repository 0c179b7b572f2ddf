"""Everything a report says, gathered once; tables, plots and the page only show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from rcompress.artifacts.records import Record, find_record_files, read_records
from rcompress.errors import RcompressError
from rcompress.report.compare import baseline_of, with_deltas
from rcompress.report.frame import (
    ACCURACY_KEYS,
    SPEED_KEYS,
    Row,
    frame_from_records,
    names_of,
    repeated,
)
from rcompress.report.lineage import Step, histories, identity
from rcompress.report.published import beside
from rcompress.report.score import scored
from rcompress.report.seeds import seed_notes
from rcompress.report.text import printable

TITLE = "Compression report"
REPEATED = (
    (
        "eval",
        ACCURACY_KEYS,
        "accuracy measured more than once on the same images; the record read last counts, wherever it was taken",
    ),
    (
        "bench",
        SPEED_KEYS,
        "timed more than once under the same conditions; the record read last counts, of several one taken in "
        "turns with the baseline's",
    ),
)
"""Of what only one measurement is shown: kind of record, conditions, what is said of it."""


@dataclass(frozen=True)
class Report:
    """What there is to show.

    Attributes:
        title: the page's heading.
        frame: a row per artifact and condition, with the deltas (see `frame_from_records`, `with_deltas`).
        baseline, baseline_backend: the artifact that deltas are against, and what it ran in.
        histories: per SHA-256, the steps that made the artifact, oldest first.
        notes: what the records say their readers must know, each with the artifact's name.
        machines: the distinct machines that measured, in words.
        versions: per package, the distinct versions that measured.
        records: what all this was made from.
        published: other people's figures with ours beside them (see `beside`), where there are any.
        logs: by training run, its epochs (see `read_logs`).
    """

    title: str
    frame: pl.DataFrame
    baseline: str
    baseline_backend: str | None
    histories: dict[str, list[Step]]
    notes: list[str]
    machines: list[str]
    versions: dict[str, list[str]]
    records: Sequence[Record]
    published: pl.DataFrame | None = None
    logs: Mapping[str, Sequence[Row]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Primitives for JSON; figures in the records' units."""
        return {
            "title": self.title,
            "baseline": self.baseline,
            "baseline_backend": self.baseline_backend,
            "rows": self.frame.to_dicts(),
            "notes": self.notes,
            "machines": self.machines,
            "versions": self.versions,
            "published": [] if self.published is None else self.published.to_dicts(),
        }


def build_report(
    records: Sequence[Record],
    baseline: str | None = None,
    title: str = TITLE,
    published: pl.DataFrame | None = None,
    logs: Mapping[str, Sequence[Row]] | None = None,
    score: bool = False,
) -> Report:
    """Merge ``records`` and compare every row with ``baseline`` (an artifact's name; None: the first row's).

    ``published`` is other people's figures (see `read_published`), which ours are put beside; ``logs`` are the
    epochs of training runs (see `read_logs`); ``score`` adds that of `scored`.

    Raises:
        RcompressError: there is no record, or no artifact called ``baseline``, or a metric is not a number.
    """
    if not records:
        raise RcompressError(
            "report", "there is no record to show", "measure something with rcompress eval or bench"
        )
    measured = frame_from_records(records)
    steps = histories(records)
    frame = with_deltas(scored(measured) if score else measured, baseline)
    artifact, backend = baseline_of(measured, baseline)
    return Report(
        title=title,
        frame=frame,
        baseline=artifact,
        baseline_backend=backend,
        histories=steps,
        notes=seed_notes(frame, steps) + _notes(records, names_of(frame)),
        machines=_distinct(_machine(record) for record in records),
        versions=_versions(records),
        records=records,
        published=None if published is None else beside(frame, published),
        logs=logs or {},
    )


def read_sources(sources: Iterable[Path]) -> tuple[list[Record], list[Path], list[Path]]:
    """The records of files and folders, the files read, and those passed over.

    Raises:
        RcompressError: a file is missing or holds no records of ours, or there is no record file at all.
    """
    named = list(sources)
    files, skipped = find_record_files(named)
    if not files:
        names = ", ".join(str(path) for path in named)
        raise RcompressError(
            names, "no *.result.json there", "measure something with rcompress eval or bench"
        )
    return [record for path in files for record in read_records(path)], files, skipped


def _notes(records: Sequence[Record], names: Mapping[str, str]) -> list[str]:
    """Each note once, with the artifacts it is about unless it is about all; then what was measured twice."""
    about: dict[str, list[str]] = {}
    for record in records:
        for note in record.notes:
            about.setdefault(str(printable(note)), []).append(names[identity(record)])
    notes = [
        note if set(found) == set(names.values()) else f"{', '.join(dict.fromkeys(found))}: {note}"
        for note, found in about.items()
    ]
    twice = [
        f"{names[sha256]}: {said}"
        for kind, keys, said in REPEATED
        for sha256 in repeated(records, kind, keys)
    ]
    return notes + twice


def _machine(record: Record) -> str:
    machine = record.machine
    cores = machine.get("cores")
    parts = (
        machine.get("cpu"),
        None if cores is None else f"{cores} core{'' if cores == 1 else 's'}",
        machine.get("instruction_set"),
        f"{machine.get('system', '')} {machine.get('architecture', '')}".strip() or None,
    )
    return ", ".join(str(printable(part)) for part in parts if part is not None)


def _versions(records: Iterable[Record]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for record in records:
        for name, version in record.versions.items():
            known = found.setdefault(str(printable(name)), [])
            if (text := str(printable(version))) not in known:
                known.append(text)
    return found


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))
