"""Artifacts made by the same commands but for their seeds: how far chance alone moves the accuracy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import mean, stdev

import polars as pl

from rcompress.report.frame import ACCURACY_KEYS
from rcompress.report.lineage import Step, mapping

SEEDS = ("seed", "training_seed")


def seed_notes(frame: pl.DataFrame, histories: Mapping[str, Sequence[Step]]) -> list[str]:
    """Mean and sample standard deviation of the top-1 accuracy of every such family, in a sentence each.

    Histories of before `train` told its architecture: only networks of as many parameters can be one family.
    """
    families: dict[tuple[object, ...], dict[str, tuple[str, float]]] = {}
    for row in frame.filter(pl.col("top1_percent").is_not_null()).to_dicts():
        steps = histories[row["sha256"]]
        seeds = [_seeds(step) for step in steps]
        if any(seeds):
            conditions = (row["backend"], *(row[name] for name in ACCURACY_KEYS))
            key = (_without_seeds(steps), row["arch"] or row["parameters"], *conditions)
            families.setdefault(key, {})[json.dumps(seeds)] = (row["artifact"], row["top1_percent"])
    return [_sentence(list(family.values())) for family in families.values() if len(family) > 1]


def _sentence(members: Sequence[tuple[str, float]]) -> str:
    names = ", ".join(name for name, _ in members)
    values = [value for _, value in members]
    return (
        f"{names}: the same but for the seed, top-1 {mean(values):.2f} ± {stdev(values):.2f} % "
        f"(mean and standard deviation of {len(values)})"
    )


def _seeds(step: Step) -> dict[str, object]:
    options = mapping(step.get("options"))
    return {name: options[name] for name in SEEDS if options.get(name) is not None}


def _without_seeds(steps: Sequence[Step]) -> str:
    made = []
    for step in steps:
        kept = {k: value for k, value in mapping(step.get("options")).items() if k not in SEEDS}
        made.append((str(step.get("command")), kept))
    return json.dumps(made, sort_keys=True, default=str)
