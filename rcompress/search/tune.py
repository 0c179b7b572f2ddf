"""Which recipe trains a network best: trials of Optuna, in one process or in many on one storage."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from rcompress.errors import RcompressError, is_out_of_memory
from rcompress.progress import SILENT, Progress
from rcompress.search.ranges import Ranges, described, tried
from rcompress.search.studies import PrunerName
from rcompress.training.loop import Trainer
from rcompress.training.recipe import Recipe
from rcompress.training.run import material_for
from rcompress.training.settings import Settings
from rcompress.training.start import Start

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Tuning:
    """What is searched.

    Attributes:
        ranges: by part of the recipe.
        base: the rest of the recipe.
        trials: how many the study is to have at the end, pruned and failed ones included; of several workers each
            may add one more.
        pruner: see `open_study`.
    """

    ranges: Ranges
    base: Recipe
    trials: int
    pruner: PrunerName = "median"

    @property
    def epochs(self) -> int:
        """Of the longest trial."""
        found = self.ranges.get("epochs")
        if found is None:
            return self.base.epochs
        return int(max(found.choices)) if found.choices else int(found.high)


def identity_of(tuning: Tuning, start: Start, settings: Settings) -> dict[str, Any]:
    """What must agree for another worker, or a later run, to add trials to the same study."""
    spec = start.spec
    return {
        "arch": spec.arch,
        "options": spec.options,
        "preprocessing": asdict(spec.preprocessing),
        "dataset": start.dataset.name,
        "parent": start.identity or None,
        "precision": settings.precision,
        "seed": settings.seed,
        "recipe": {name: value for name, value in asdict(tuning.base).items() if name not in tuning.ranges},
        "ranges": described(tuning.ranges),
    }


def tune(study: Study, start: Start, tuning: Tuning, settings: Settings, progress: Progress = SILENT) -> None:
    """Add trials to ``study`` until it has as many as asked for; other workers may do so at the same time.

    A trial trains a copy of ``start``'s network and is worth the best epoch's top-1 accuracy, in percent, on the
    split on which choices are made; the test data are never looked at. A trial that fails says why in its
    attributes, and the next one comes.
    """
    from optuna.samplers import TPESampler

    def objective(trial: Trial) -> float:
        # Workers that share a seed must not try the same: the number of the trial is one of its own.
        trial.study.sampler = TPESampler(seed=settings.seed * 100_003 + trial.number)
        return _accuracy(trial, start, tuning, settings, progress)

    def tell(study: Study, trial: FrozenTrial) -> None:
        progress.note(_line(study, trial))

    while _finished(study) < tuning.trials:
        study.optimize(objective, n_trials=1, catch=(RcompressError,), callbacks=(tell,))


def best_trial(study: Study) -> FrozenTrial:
    """The finished trial of the highest value.

    Raises:
        RcompressError: none has finished.
    """
    try:
        return study.best_trial
    except ValueError:
        failures = [trial.user_attrs.get("failure") for trial in study.get_trials(deepcopy=False)]
        reason = next((failure for failure in reversed(failures) if failure), "none was run")
        raise RcompressError(
            "tune", f"no trial has finished ({reason})", "raise --trials, or narrow the ranges"
        ) from None


def best_recipe(study: Study, base: Recipe) -> Recipe:
    """``base`` with the values of the best trial.

    Raises:
        RcompressError: no trial has finished.
    """
    return tried(base, best_trial(study).params)


def counts(study: Study) -> Mapping[str, int]:
    """How many trials there are in each state, by its name in lower case."""
    names = [trial.state.name.lower() for trial in study.get_trials(deepcopy=False)]
    return {name: names.count(name) for name in sorted(set(names))}


def _accuracy(trial: Trial, start: Start, tuning: Tuning, settings: Settings, progress: Progress) -> float:
    from optuna import TrialPruned

    values = {name: found.suggest(trial, name) for name, found in tuning.ranges.items()}

    def after_epoch(trainer: Trainer) -> None:
        epoch = trainer.history[-1]
        trial.report(epoch["validation_top1_percent"], epoch["epoch"])
        if epoch["epoch"] < trainer.recipe.epochs and trial.should_prune():
            raise TrialPruned

    torch.manual_seed(settings.seed)
    progress.note(f"trial {trial.number}: " + ", ".join(f"{name} {_short(v)}" for name, v in values.items()))
    try:
        trainer = Trainer(
            copy.deepcopy(start.module),
            material_for(start.spec, start.dataset),
            tried(tuning.base, values),
            settings,
        )
        trainer.run(after_epoch, progress)
    except RcompressError as error:  # a rate too high ends one trial, not the search
        trial.set_user_attr("failure", str(error))
        raise
    except RuntimeError as error:  # so does a batch too large
        if not is_out_of_memory(error):
            raise
        failure = RcompressError(f"trial {trial.number}", "out of memory", "narrow the range of batch_size")
        trial.set_user_attr("failure", str(failure))
        raise failure from None
    return trainer.best.top1_percent


def _finished(study: Study) -> int:
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _line(study: Study, trial: FrozenTrial) -> str:
    """How a trial ended, and the best so far."""
    ended = f"{trial.values[0]:.2f} %" if trial.values else "no accuracy"
    text = f"trial {trial.number} {trial.state.name.lower()}: {ended}"
    try:
        return f"{text}; best {study.best_value:.2f} % (trial {study.best_trial.number})"
    except ValueError:
        return text


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
