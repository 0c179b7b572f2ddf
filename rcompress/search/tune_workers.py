"""A tuning by several processes of this machine that share one storage."""

from __future__ import annotations

import multiprocessing
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rcompress.errors import RcompressError
from rcompress.progress import SILENT, Progress
from rcompress.search.studies import StudyPlace, open_study
from rcompress.search.tune import Tuning, best_trial, identity_of, tune
from rcompress.training.settings import Settings
from rcompress.training.start import Origin, Start

if TYPE_CHECKING:
    from optuna import Study


@dataclass(frozen=True)
class Plan:
    """Everything a worker needs, in words that can be handed to another process."""

    place: StudyPlace
    origin: Origin
    tuning: Tuning
    settings: Settings
    threads: int

    def start(self, progress: Progress = SILENT) -> Start:
        """The network and its data, the same in every process: a new head is drawn by the seed.

        Raises:
            RcompressError: see `Origin.open`.
        """
        torch.manual_seed(self.settings.seed)
        return self.origin.open(self.tuning.base, self.settings.seed, progress)

    def study(self, start: Start) -> AbstractContextManager[Study]:
        """The study, claimed for this search and open for a while.

        Raises:
            RcompressError: see `open_study`.
        """
        identity = identity_of(self.tuning, start, self.settings)
        return open_study(self.place, self.tuning.pruner, self.tuning.epochs, identity)


def tune_together(
    plan: Plan, start: Start, study: Study, workers: int = 1, progress: Progress = SILENT
) -> None:
    """Run ``workers`` processes, this one among them, with ``plan``'s ``start`` and ``study``.

    The others are told of nothing; that one of them ended early is said.

    Raises:
        RcompressError: no trial has finished.
    """
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_work, args=(plan,), daemon=True) for _ in range(workers - 1)]
    for other in others:
        other.start()
    torch.set_num_threads(plan.threads)
    tune(study, start, plan.tuning, plan.settings, progress)
    for other in others:
        other.join()
        if other.exitcode:
            progress.note(f"a worker ended early (exit code {other.exitcode})")
    best_trial(study)


def _work(plan: Plan) -> None:
    torch.set_num_threads(plan.threads)
    try:
        start = plan.start()
        with plan.study(start) as study:
            tune(study, start, plan.tuning, plan.settings)
    except (RcompressError, KeyboardInterrupt):  # the first process meets the same, or was interrupted too
        sys.exit(1)
