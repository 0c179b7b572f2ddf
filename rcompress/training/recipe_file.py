"""Recipes as TOML: one ``name = value`` per field."""

from __future__ import annotations

import json
import tomllib
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any

from rcompress.artifacts.files import require_file
from rcompress.errors import RcompressError
from rcompress.training.recipe import Recipe


def recipe_toml(recipe: Recipe, comment: str = "") -> bytes:
    """The text of a file that `recipe_from_toml` reads; ``comment`` stands above it."""
    lines = [f"# {line}" for line in comment.splitlines()]
    given = {name: value for name, value in asdict(recipe).items() if value is not None}
    lines += [f"{name} = {json.dumps(value)}" for name, value in given.items()]
    return ("\n".join(lines) + "\n").encode()


def recipe_from_toml(path: Path, base: Recipe) -> Recipe:
    """``base`` with what the file says.

    Raises:
        RcompressError: no such file, no TOML, a name that recipes do not have, or a value of another kind.
    """
    return recipe_with(base, read_toml(path), path)


def recipe_with(base: Recipe, entries: dict[str, Any], subject: Path | str) -> Recipe:
    """``base`` with ``entries``, checked; ``subject`` is where they were read.

    Raises:
        RcompressError: a name that recipes do not have, or a value of another kind.
    """
    known = {field.name: field.default for field in fields(Recipe)}
    for name, value in entries.items():
        if name not in known:
            raise RcompressError(subject, f"{name} is no part of a recipe", f"use {', '.join(known)}")
        if not _fits(value, known[name]):
            raise RcompressError(
                subject, f"{name} = {value!r} is of the wrong kind", f"write it like {known[name]!r}"
            )
    listed: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in entries.items()
    }
    return replace(base, **listed)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        RcompressError: no such file, or no TOML.
    """
    try:
        return tomllib.loads(require_file(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RcompressError(path, f"is no TOML ({error})", "write lines such as epochs = 20") from None


def _fits(value: object, default: object) -> bool:
    if default is None or default is MISSING:  # mean and std
        return isinstance(value, list) and all(isinstance(part, int | float) for part in value)
    if isinstance(value, bool):
        return False
    if isinstance(default, float):
        return isinstance(value, int | float) and value >= 0
    return type(value) is type(default) and (not isinstance(value, int) or value >= 0)
