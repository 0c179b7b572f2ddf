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
        raise typer.BadParameter(
            f"{text!r} is no list of numbers such as 0.485,0.456,0.406", param_hint=option
        ) from None


def batch_range(text: str) -> tuple[int, int, int]:
    """``1:8:64`` as (smallest, usual, largest) batch; one number is all three."""
    try:
        sizes = [int(part) for part in text.split(":")]
    except ValueError:
        sizes = []
    sizes = sizes * 3 if len(sizes) == 1 else sizes
    if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
        raise typer.BadParameter(f"{text!r} is no range such as 1:8:64", param_hint="--batch-range")
    return sizes[0], sizes[1], sizes[2]
