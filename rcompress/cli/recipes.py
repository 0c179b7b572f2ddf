"""A recipe by name, changed by the options that were given."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rcompress.training import Recipe


def changed_recipe(name: str, **changes: Any) -> Recipe:
    """The recipe called ``name``; ``changes`` are its fields, None where the option was left out.

    Raises:
        RcompressError: a value is none of those allowed.
    """
    from rcompress.training import RECIPES

    return replace(RECIPES[name], **{field: value for field, value in changes.items() if value is not None})
