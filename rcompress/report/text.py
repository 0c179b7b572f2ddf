"""Figures and foreign text as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MIB, KIB = 2**20, 2**10


def printable(value: object) -> str | None:
    """``value`` as one line without control and direction characters, which a record's author could plant."""
    if value is None:
        return None
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def in_words(conditions: Mapping[str, Any]) -> str:
    """``cifar10, test split, 10,000 images``, ``AMD EPYC (AVX2), 1 thread, batch 1``; None is left out.

    A processor is called by its name; beside a GPU it is left out.
    """
    said = {key: value for key, value in conditions.items() if value not in (None, "none")}
    on_processor = said.get("device", "cpu") == "cpu"
    said.pop("device" if on_processor and "machine" in said else "machine", None)
    return ", ".join(_condition(key, value) for key, value in said.items())


def significant(value: float, digits: int = 3) -> str:
    """``0.352``, ``12.7``, ``1,240``: at least ``digits`` significant digits, never an exponent."""
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - _magnitude(value))
    return f"{value:,.{min(decimals, 9)}f}"


def with_spread(row: Mapping[str, Any], metric: str, scale: float = 1.0, decimals: int | None = None) -> str:
    """``92.63 (92.10-93.12)`` where the row has an interval, ``2.13 ± 0.02`` where it has a deviation."""
    value = row.get(metric)
    if value is None:
        return ""
    shown = _fixed(value * scale, decimals)
    places = len(shown.partition(".")[2])
    low, high, std = (row.get(f"{metric}_{ending}") for ending in ("low", "high", "std"))
    if low is not None and high is not None:
        return f"{shown} ({_fixed(low * scale, places)}-{_fixed(high * scale, places)})"
    return shown if std is None else f"{shown} ± {_fixed(std * scale, places)}"


def signed(value: float, decimals: int = 2) -> str:
    """``-3.72``, ``+0.08``, and ``0.00`` without a sign."""
    shown = f"{value:+.{decimals}f}"
    return shown if float(shown) else f"{0:.{decimals}f}"


def _condition(key: str, value: object) -> str:
    written = {
        "split": "{} split",
        "images": "{:,} images",
        "batch_size": "batch {}",
        "transfers": "transfers {}",
    }
    written["threads"] = "{} thread" if value == 1 else "{} threads"
    return written.get(key, "{}").format(value)


def _fixed(value: float, decimals: int | None) -> str:
    return significant(value) if decimals is None else f"{value:,.{decimals}f}"


def _magnitude(value: float) -> int:
    """The power of ten of the first digit: 0 for 2.13, -1 for 0.352."""
    return int(f"{abs(value):e}".partition("e")[2])
