"""Where `train` and `tune` start, from their options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rcompress.training.start import Origin


def origin_of(
    init: str | None,
    arch: str | None,
    shortcut: str | None,
    stem: str | None,
    dataset: str | None,
    data_dir: Path | None,
    image_size: int | None,
) -> Origin:
    """The origin that ``--init`` and its like name.

    Raises:
        BadParameter: without a checkpoint the architecture or the dataset is missing, or what a checkpoint
            settles is given beside it.
    """
    from rcompress.training.start import Origin

    builder = {name: str(value) for name, value in (("shortcut", shortcut), ("stem", stem)) if value}
    origin = Origin(init, arch, builder, dataset, data_dir, image_size)
    if origin.source is None:
        if arch is None:
            raise typer.BadParameter("name an architecture", param_hint="--arch")
        if dataset is None:
            raise typer.BadParameter("name a dataset", param_hint="--dataset")
    elif builder or image_size or (arch and ":" not in arch):
        raise typer.BadParameter("the checkpoint has its own architecture and size", param_hint="--init")
    return origin
