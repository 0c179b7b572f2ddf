"""What a tuning tries: a range per part of the recipe, read from TOML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rcompress.errors import RcompressError
from rcompress.training.recipe import Recipe
from rcompress.training.recipe_file import read_toml, recipe_with

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

Value = str | int | float
KEYS = ("choices", "low", "high", "log", "step")
DEFAULTS = Recipe()
TUNABLE = tuple(field.name for field in fields(Recipe) if getattr(DEFAULTS, field.name) is not None)


@dataclass(frozen=True)
class Range:
    """The values of one part of a recipe: ``choices``, or everything from ``low`` to ``high``."""

    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    whole: bool = False

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), self.log, int(self.step or 1))
        return FloatDistribution(self.low, self.high, self.log, self.step)

    def suggest(self, trial: Trial, name: str) -> Value:
        """The value that ``trial`` is to try."""
        if self.choices:
            return cast(Value, trial.suggest_categorical(name, self.choices))
        if self.whole:
            return trial.suggest_int(
                name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log
            )
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


Ranges = Mapping[str, Range]


def read_ranges(path: Path | None, base: Recipe) -> dict[str, Range]:
    """The ranges of a TOML file, by default of the one that comes with the package.

    Args:
        path: its tables are called like the parts of a recipe.
        base: what the ranges change; every end of a range must be a recipe.

    Raises:
        RcompressError: no such file, no TOML, or a table that is no range of such values.
    """
    if path is None:
        with resources.as_file(resources.files("rcompress.search") / "ranges.toml") as own:
            return read_ranges(own, base)
    tables = read_toml(path)
    if not tables:
        raise RcompressError(path, "holds no ranges", "write tables such as [learning_rate]")
    return {name: _range(path, name, table, base) for name, table in tables.items()}


def tried(base: Recipe, values: Mapping[str, Any]) -> Recipe:
    """``base`` with the values of a trial."""
    return recipe_with(base, dict(values), "trial")


def described(ranges: Ranges) -> dict[str, Any]:
    """Primitives that tell one search from another."""
    return {name: asdict(found) for name, found in sorted(ranges.items())}


def _range(path: Path, name: str, table: object, base: Recipe) -> Range:
    if name not in TUNABLE or not isinstance(table, dict) or set(table) - set(KEYS):
        raise RcompressError(
            path,
            f"[{name}] is no range of a recipe",
            f"name one of {', '.join(TUNABLE)}, with {', '.join(KEYS)}",
        )
    choices = table.get("choices")
    ends = choices if choices is not None else [table.get("low"), table.get("high")]
    if not isinstance(ends, list) or not ends or (choices is not None and len(table) > 1):
        raise _unlike(path, name, "choices alone, as a list")
    for end in ends:
        recipe_with(base, {name: end}, path)
    return Range(choices=tuple(choices)) if choices is not None else _between(path, name, table)


def _between(path: Path, name: str, table: Mapping[str, Any]) -> Range:
    low, high, log, step = table["low"], table["high"], table.get("log", False), table.get("step")
    if isinstance(low, str) or not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise _unlike(path, name, "low below high")
    if not isinstance(log, bool) or (log and low <= 0):
        raise _unlike(path, name, "log = true with low above 0")
    whole = isinstance(getattr(DEFAULTS, name), int)
    fits = isinstance(step, int) if whole else isinstance(step, int | float)
    if step is not None and (not fits or isinstance(step, bool) or step <= 0 or log):
        raise _unlike(path, name, "step above 0, and not with log")
    return Range(low=low, high=high, log=log, step=step, whole=whole)


def _unlike(path: Path, name: str, wanted: str) -> RcompressError:
    return RcompressError(path, f"[{name}] is no range that can be tried", f"give {wanted}")
