"""What a run minimises beside or instead of cross-entropy, and what it holds while it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

ParameterGroups = Callable[[nn.Module], list[dict[str, Any]]]


@dataclass(frozen=True)
class Batch:
    """What a loss sees beside the logits.

    Attributes:
        inputs: (N, C, H, W) float32, normalised, augmented and mixed as the network saw them.
        labels: (N,) int64.
        targets: the labels, or under mixup blended one-hot rows (N, K) float32.
        where: (N,) int64 on the CPU, positions in the training split.
        mirrored: (N,) bool on the CPU, which images are mirrored.
        epoch: counted from 1.
    """

    inputs: Tensor
    labels: Tensor
    targets: Tensor
    where: Tensor
    mirrored: Tensor
    epoch: int


class Loss(Protocol):
    """A loss of a batch, as a scalar that can be differentiated."""

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """``logits`` (N, K) float32."""
        ...

    def identity(self) -> dict[str, Any]:
        """Primitives that tell this loss from others: a run is resumed with the same alone."""
        ...


class Constraint:
    """Something held during a run (masks, penalties, clipping); every hook may be left out."""

    def attach(self, module: nn.Module) -> None:
        """Called once, with the network on its device, before the optimizer and the moving average are made."""

    def before_step(self, module: nn.Module, epochs_done: float) -> None:
        """Before the forward pass; ``epochs_done`` counts from 0."""

    def penalty(self, module: nn.Module) -> Tensor | None:  # noqa: ARG002
        """A scalar to be added to the loss."""
        return None

    def after_backward(self, module: nn.Module) -> None:
        """The gradients are there, unscaled."""

    def after_step(self, module: nn.Module) -> None:
        """The optimizer has moved the weights; the moving average has not seen them yet."""

    def project(self, module: nn.Module) -> None:
        """Bring ``module``, of the run's shapes, to what the constraint allows: after every epoch the network that is
        judged and kept, which may be a moving average of weights that differed."""

    def admits(self) -> bool:
        """Whether the network after this epoch may be kept; one that is not yet what was asked for may not."""
        return True

    def identity(self) -> dict[str, Any]:
        """Primitives that tell this constraint from others."""
        return {"constraint": type(self).__name__}

    def state(self) -> dict[str, Any]:
        """Tensors and primitives that `restore` needs to go on after a kill."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""


@dataclass(frozen=True)
class Guidance:
    """How a run departs from plain training.

    Attributes:
        loss: None for cross-entropy with the recipe's label smoothing.
        constraints: called in their order.
        parameter_groups: the optimizer's groups for the attached network; a group's ``lr_scale`` multiplies the
            schedule's rate. None: matrices with, vectors without weight decay.
    """

    loss: Loss | None = None
    constraints: tuple[Constraint, ...] = ()
    parameter_groups: ParameterGroups | None = None

    def identity(self) -> dict[str, Any]:
        """What must agree for a run to be resumed; empty for plain training."""
        said: dict[str, Any] = {}
        if self.loss is not None:
            said["loss"] = self.loss.identity()
        if self.constraints:
            said["constraints"] = [constraint.identity() for constraint in self.constraints]
        return said
