"""The one training loop, its recipes, and what a run leaves behind."""

from rcompress.training.guidance import Batch, Constraint, Guidance, Loss
from rcompress.training.loop import Material, Trainer, validate
from rcompress.training.recipe import RECIPES, Recipe
from rcompress.training.run import Outcome, run_training
from rcompress.training.settings import Settings, resolve_precision

__all__ = [
    "RECIPES",
    "Batch",
    "Constraint",
    "Guidance",
    "Loss",
    "Material",
    "Outcome",
    "Recipe",
    "Settings",
    "Trainer",
    "resolve_precision",
    "run_training",
    "validate",
]
