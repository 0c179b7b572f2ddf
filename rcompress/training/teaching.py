"""A whole distillation: teachers, a student, one run, and both scored on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rcompress.measure.accuracy import Scores
from rcompress.progress import SILENT, Progress
from rcompress.training.lessons import Ensemble, Lesson, guidance_for
from rcompress.training.processes import ALONE
from rcompress.training.recipe import Recipe
from rcompress.training.run import Outcome, run_training, test_scores
from rcompress.training.settings import Settings
from rcompress.training.start import Start
from rcompress.training.teacher_cache import cached_logits, without_crops
from rcompress.training.teachers import Member, Teacher


@dataclass(frozen=True)
class Taught:
    """A trained student, and what its teachers score together on the images that the student is reported on."""

    outcome: Outcome
    teacher: Scores


def teach(
    start: Start,
    members: Sequence[Member],
    lesson: Lesson,
    recipe: Recipe,
    settings: Settings,
    output: Path,
    cache: bool = False,
    resume: bool = False,
    tensorboard: bool = False,
    progress: Progress = SILENT,
) -> Taught:
    """Train ``start``'s network on what ``members`` say of its images.

    Args:
        start: the student and its data.
        members: at least one, of the student's classes and image size.
        lesson: what is learned of them.
        recipe, settings, output, resume, tensorboard: see `run_training`.
        cache: ask the teacher once per image, without random crops, and keep its answers on disk.

    Raises:
        RcompressError: teacher, lesson and student do not go together, or whatever `run_training` raises.
    """
    teacher = Teacher(members, start.spec, settings)
    dataset = without_crops(start.dataset) if cache else start.dataset
    cached = cached_logits(teacher, dataset, recipe, progress=progress) if cache else None
    guidance = guidance_for(lesson, teacher, recipe, start.spec.preprocessing.input_size, cached)
    outcome = run_training(
        start.module,
        start.spec,
        dataset,
        recipe,
        settings,
        output,
        start.parent,
        resume,
        tensorboard,
        progress,
        guidance,
    )
    alone = replace(settings, precision="fp32", processes=ALONE)  # those that helped to train are gone
    exact = Ensemble(Teacher(members, start.spec, alone))
    return Taught(outcome, test_scores(exact, start.spec, dataset, alone, chosen=recipe.epochs > 0))
