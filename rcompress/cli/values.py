"""Option values that need parsing; what does not fit is wrong usage (exit 2)."""

from __future__ import annotations

import typer


def floats_per_channel(text: str | None, option: str) -> tuple[float, ...] | None:
    """``0.485,0.456,0.406`` as numbers, one per channel; None stays None."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of numbers such as 0.485,0.456,0.406", param_hint=option) from None
