"""A recipe by name, changed by the options that were given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rcompress.training import Recipe


def changed_recipe(name: str, config: Path | None = None, **changes: Any) -> Recipe:
    """The recipe called ``name``, changed by the file ``config`` and then by the options.

    ``changes`` are its fields, None where the option was left out.

    Raises:
        RcompressError: a value is none of those allowed, or the file cannot be read.
    """
    from rcompress.training import RECIPES
    from rcompress.training.recipe_file import recipe_from_toml

    recipe = RECIPES[name] if config is None else recipe_from_toml(config, RECIPES[name])
    return recipe.changed(**changes)
