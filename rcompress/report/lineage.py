"""An artifact's history as the commands one would type."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from rcompress.artifacts.records import Record
from rcompress.report.text import printable

ARROW = " → "
Step = Mapping[str, Any]


def identity(record: Record) -> str:
    """The artifact's SHA-256 as all tables here have it."""
    return str(printable(record.sha256))


def histories(records: Iterable[Record]) -> dict[str, list[Step]]:
    """Each artifact's steps by its SHA-256, oldest first, from the first record that tells them."""
    found: dict[str, list[Step]] = {}
    for record in records:
        sha256 = identity(record)
        found[sha256] = found.get(sha256) or [step for step in record.lineage if isinstance(step, dict)]
    return found


def command_text(step: Step) -> str:
    """``prune r20.pth --ratio 0.6``: what was typed, or else the step with its options but those unset or off."""
    typed = step.get("invocation")
    if typed and isinstance(typed, list | tuple):
        return shlex.join(str(word) for word in typed)
    words = [str(step.get("command", "?"))]
    if step.get("parent_name"):
        words.append(shlex.quote(str(step["parent_name"])))
    for name, value in mapping(step.get("options")).items():
        words += _option(str(name), value)
    return " ".join(words)


def command_texts(lineage: Iterable[Step]) -> list[str]:
    """The commands of a history, oldest first, each once: one may have made several steps."""
    return [text for text, _ in groupby(map(command_text, lineage))]


def history_text(lineage: Iterable[Step]) -> str:
    """The whole history in one line, oldest command first."""
    return ARROW.join(command_texts(lineage))


def commands_of(history: str) -> str:
    """Of such a line the commands alone: ``train → prune → export``."""
    return ARROW.join(step.split(" ", 1)[0] for step in history.split(ARROW))


def mapping(value: object) -> Mapping[str, Any]:
    """``value``, or nothing where a record has something else there."""
    return value if isinstance(value, Mapping) else {}


def _option(name: str, value: object) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    text = ",".join(str(item) for item in value) if isinstance(value, list | tuple) else str(value)
    return [flag, shlex.quote(text)]
