"""Learning from what goes on inside a teacher: hints, attention, relations, beside its outputs or the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rcompress.errors import RcompressError
from rcompress.training.feature_losses import attention_loss, hint_loss, relational_loss
from rcompress.training.features import EMBEDDING, Watch, feature_shapes, stage_ends
from rcompress.training.guidance import Batch, Constraint, Guidance, Loss
from rcompress.training.recipe import Recipe, default_groups
from rcompress.training.teachers import Teacher

FeatureTerm = Literal["hints", "attention", "relational"]
WEIGHTS: dict[FeatureTerm, float] = {"hints": 1.0, "attention": 1000.0, "relational": 1.0}
"""Usual weights: attention's is that of its authors' section 4.1."""

Pairs = tuple[tuple[str, str], ...]
"""(student's layer, teacher's layer), from the input to the output."""


class WatchedTeacher:
    """A teacher of one member whose features are kept; one forward pass per batch gives logits and features."""

    def __init__(self, teacher: Teacher) -> None:
        member = teacher.members[0]
        if len(teacher.members) > 1 or member.module is None:
            raise RcompressError(
                member.path, "features are learned from one network of PyTorch", "name one .pth as --teacher"
            )
        self.module = member.module
        self.path = member.path
        self._teacher = teacher
        self._watch = Watch(member.module, ())
        self._seen: tuple[Batch, Tensor, dict[str, Tensor]] | None = None

    def keep(self, layers: Sequence[str]) -> None:
        """Name the layers whose outputs `features` is to give."""
        self._watch = Watch(self.module, layers)

    def of(self, batch: Batch) -> Tensor:
        """See `Logits`."""
        return self._look(batch)[0]

    def features(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs of the layers to keep, float32, by name."""
        return self._look(batch)[1]

    def identity(self) -> dict[str, Any]:
        """See `Logits`."""
        return self._teacher.identity()

    def _look(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if self._seen is None or self._seen[0] is not batch:
            self._watch.on()
            logits = self._teacher.of(batch)
            self._seen = (batch, logits, self._watch.off())
        return self._seen[1:]


class FeatureDistillation(Constraint):
    """``base + sum of weight * term``; a loss, and a constraint for what a loss cannot do: watch, and be resumed.

    Args:
        base: the loss of the outputs, with the labels' share.
        teacher: gives the features to be learned.
        weights: by term.
        pairs: layers to match; by default the stage ends that have the same size in both networks. Hints are
            taken at the pair in the middle, through a 1 x 1 convolution that is trained along and then dropped
            (Romero et al. 2015, section 2.2, with both of its stages in one); attention at every pair; relations
            at the heads' inputs.
        input_size: (C, H, W) of the student's images.
    """

    def __init__(
        self,
        base: Loss,
        teacher: WatchedTeacher,
        weights: Mapping[FeatureTerm, float],
        input_size: tuple[int, int, int],
        pairs: Pairs = (),
    ) -> None:
        self.base = base
        self.teacher = teacher
        self.weights = dict(weights)
        self.input_size = input_size
        self.pairs = pairs
        self.regressor: nn.Conv2d | None = None

    def attach(self, module: nn.Module) -> None:
        """Settle the pairs of layers for this student.

        Raises:
            RcompressError: a layer is not there or gives no feature maps, or no sizes agree.
        """
        if self.weights.keys() - {"relational"}:
            self._settle(module)
        embedding = (EMBEDDING,) if "relational" in self.weights else ()
        self._watch = Watch(module, (*dict.fromkeys(own for own, _ in self.pairs), *embedding))
        self.teacher.keep((*dict.fromkeys(shown for _, shown in self.pairs), *embedding))

    def before_step(self, module: nn.Module, epochs_done: float) -> None:
        """Watch the forward pass to come."""
        del module, epochs_done
        self._watch.on()

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """The whole loss, a scalar."""
        own, shown = self._watch.off(), self.teacher.features(batch)
        terms = [weight * self._term(term, own, shown) for term, weight in self.weights.items()]
        return self.base(logits, batch) + torch.stack(terms).sum()

    def groups(self, recipe: Recipe, module: nn.Module) -> list[dict[str, Any]]:
        """The optimizer's groups: the student's and, with hints, the regressor's."""
        return [
            part
            for trained in (module, self.regressor)
            if trained is not None
            for part in default_groups(recipe, trained)
        ]

    def identity(self) -> dict[str, Any]:
        """See `Constraint`."""
        own = {"features": self.weights, "layers": [list(pair) for pair in self.pairs]}
        return {**self.base.identity(), **own, **self.teacher.identity()}

    def state(self) -> dict[str, Any]:
        """The regressor's weights."""
        return {"regressor": None if self.regressor is None else self.regressor.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """See `state`."""
        if self.regressor is not None:
            self.regressor.load_state_dict(state["regressor"])

    def _settle(self, module: nn.Module) -> None:
        own = feature_shapes(module, self.input_size)
        shown = feature_shapes(self.teacher.module, self.input_size)
        self.pairs = self.pairs or _matching(stage_ends(own), stage_ends(shown))
        for student, teacher in self.pairs:
            _require(student, own, "student")
            _require(teacher, shown, "teacher")
        if "hints" in self.weights:
            student, teacher = self._hinted
            regressor = nn.Conv2d(own[student][1], shown[teacher][1], kernel_size=1)
            self.regressor = regressor.to(next(module.parameters()).device)

    @property
    def _hinted(self) -> tuple[str, str]:
        return self.pairs[len(self.pairs) // 2]

    def _term(self, term: FeatureTerm, own: dict[str, Tensor], shown: dict[str, Tensor]) -> Tensor:
        if term == "relational":
            return relational_loss(own[EMBEDDING], shown[EMBEDDING])
        if term == "attention":
            return torch.stack([attention_loss(own[s], shown[t]) for s, t in self.pairs]).sum()
        assert self.regressor is not None, "not attached"
        student, teacher = self._hinted
        return hint_loss(self.regressor(own[student]), shown[teacher])


def guidance_of(distillation: FeatureDistillation, recipe: Recipe) -> Guidance:
    """``distillation`` in its three roles: loss, constraint, optimizer groups."""
    return Guidance(
        loss=distillation,
        constraints=(distillation,),
        parameter_groups=lambda module: distillation.groups(recipe, module),
    )


def _matching(student: Mapping[tuple[int, int], str], teacher: Mapping[tuple[int, int], str]) -> Pairs:
    pairs = tuple((layer, teacher[size]) for size, layer in student.items() if size in teacher)
    if not pairs:
        raise RcompressError(
            "distillation", "student and teacher have no feature maps of one size", "name pairs with --layers"
        )
    return pairs


def _require(layer: str, shapes: Mapping[str, object], whose: str) -> None:
    if layer not in shapes:
        raise RcompressError(
            "--layers", f"the {whose}'s {layer} gives no feature maps", f"name one of {', '.join(shapes)}"
        )
