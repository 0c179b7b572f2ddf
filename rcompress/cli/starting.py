"""Where `train` and `tune` start, from their options."""

from __future__ import annotations

import typer

FROM_NOTHING = (None, "torchvision")


def builder_of(
    init: str | None,
    arch: str | None,
    shortcut: str | None,
    stem: str | None,
    dataset: str | None,
    image_size: int | None,
) -> dict[str, str]:
    """The options of the architecture's builder.

    Raises:
        BadParameter: without a checkpoint the architecture or the dataset is missing, or what a checkpoint
            settles is given beside it.
    """
    builder = {name: value for name, value in (("shortcut", shortcut), ("stem", stem)) if value}
    if init not in FROM_NOTHING and (builder or image_size or (arch and ":" not in arch)):
        raise typer.BadParameter("the checkpoint has its own architecture and size", param_hint="--init")
    if init in FROM_NOTHING and arch is None:
        raise typer.BadParameter("name an architecture", param_hint="--arch")
    if init in FROM_NOTHING and dataset is None:
        raise typer.BadParameter("name a dataset", param_hint="--dataset")
    return builder
