"""The options of a fine-tuning after something was removed, as several commands take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from rcompress.cli.output import Output

if TYPE_CHECKING:
    from rcompress.artifacts.spec import ModelSpec
    from rcompress.training import Outcome, Recipe, Settings
    from rcompress.training.guidance import Guidance, Loss
    from rcompress.training.start import Start


@dataclass(frozen=True)
class Finetuning:
    """As given; ``epochs`` 0: none; ``base`` names the recipe that they change.

    Raises:
        BadParameter: there is none, but something is said of it.
    """

    epochs: int
    learning_rate: float | None = None
    batch_size: int | None = None
    resume: bool = False
    teachers: Sequence[Path] | None = None
    distill: bool = True
    temperature: float | None = None
    alpha: float | None = None
    base: Literal["finetune", "iterative-10", "binary-connect"] = "finetune"

    def __post_init__(self) -> None:
        said = (self.learning_rate, self.batch_size, self.teachers, self.temperature, self.alpha)
        if not self.epochs and (self.resume or not self.distill or any(value is not None for value in said)):
            raise typer.BadParameter(
                "goes with fine-tuning alone; name its length", param_hint="--finetune-epochs"
            )

    def recipe(self) -> Recipe:
        """The recipe with what was given."""
        from rcompress.training import RECIPES

        return RECIPES[self.base].changed(
            epochs=self.epochs, learning_rate=self.learning_rate, batch_size=self.batch_size
        )

    def loss(self, student: ModelSpec, settings: Settings, parent: Path, arch: str | None) -> Loss | None:
        """Learning from the teachers named, by default from ``parent``; None with --no-distill or no epochs."""
        from rcompress.cli.session import distilled

        if not self.epochs:
            return None
        default = parent if self.distill else None
        return distilled(student, settings, self.teachers, self.temperature, self.alpha, default, arch)

    def details(self, settings: Settings, loss: Loss | None) -> dict[str, Any]:
        """For the options of a lineage step; nothing where there is no fine-tuning."""
        from dataclasses import asdict

        if not self.epochs:
            return {}
        told: dict[str, Any] = {
            "finetune": asdict(self.recipe()),
            "precision": settings.precision,
            "seed": settings.seed,
        }
        return told if loss is None else {**told, "distillation": loss.identity()}

    def run(
        self,
        start: Start,
        settings: Settings,
        target: Path,
        changed: Mapping[str, Any],
        guidance: Guidance,
        out: Output,
    ) -> Outcome:
        """Train the network of ``start``; ``changed`` is what was done to it, which a resumed run must agree with."""
        from rcompress.cli.session import resumable
        from rcompress.training import run_training

        with resumable(out, target):
            return run_training(
                start.module,
                start.spec,
                start.dataset,
                self.recipe(),
                settings,
                target,
                {**start.parent, **changed},
                self.resume,
                progress=out,
                guidance=guidance,
            )
