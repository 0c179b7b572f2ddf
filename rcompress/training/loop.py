"""The one training loop: training from scratch, fine-tuning, and whatever else fits weights to data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rcompress.artifacts.spec import Preprocessing
from rcompress.data import Augmentation, Split, normalize
from rcompress.data.preprocess import crop_shifts, cutout, flip, shifted, square_centres
from rcompress.errors import RcompressError
from rcompress.measure.accuracy import Scores, Tally
from rcompress.measure.memory import forget_peak, peak_held_bytes
from rcompress.progress import SILENT, Progress, tracked
from rcompress.training.average import MovingAverage
from rcompress.training.guidance import Batch, Guidance
from rcompress.training.processes import synchronised, unsynchronised
from rcompress.training.recipe import Recipe, build_optimizer, learning_rate_factor
from rcompress.training.settings import Settings

EVALUATION_BATCH = 500
REFRESH_SECONDS = (
    0.5  # reading the loss stops a GPU's queue, so the figures beside the bar are refreshed rarely
)

Epoch = dict[str, Any]


@dataclass(frozen=True)
class Material:
    """What a run learns from and is judged by; ``judge`` is what the latter is called."""

    train: Split
    validation: Split
    preprocessing: Preprocessing
    augmentation: Augmentation
    judge: str = "validation"

    def on(self, device: torch.device) -> Material:
        """The same, with images that fit in memory moved to ``device``."""
        return replace(self, train=self.train.on(device), validation=self.validation.on(device))


@dataclass
class Best:
    """The epoch with the highest validation accuracy so far (of equals the last), and its weights."""

    top1_percent: float = -1.0
    epoch: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)


class Trainer:
    """One run, epoch by epoch; `state` and `restore` carry it across a kill.

    Data order, crops and mirroring come from one generator whose state is part of `state`, so that a resumed run
    in FP32 on a CPU ends with the same weights as an uninterrupted one.

    Raises:
        RcompressError: a batch would hold one image.
    """

    def __init__(
        self,
        module: nn.Module,
        material: Material,
        recipe: Recipe,
        settings: Settings,
        guidance: Guidance = Guidance(),
    ) -> None:
        self.material = material.on(settings.device)
        self.recipe = recipe
        self.settings = settings
        self.guidance = guidance
        if settings.sync_batchnorm:
            module = synchronised(module, settings.device, settings.processes)
        self.module = module.to(settings.device).to(memory_format=torch.channels_last)
        for constraint in guidance.constraints:
            constraint.attach(self.module)
        groups = guidance.parameter_groups(self.module) if guidance.parameter_groups else None
        self.optimizer = build_optimizer(recipe, self.module, groups)
        self._beside = _outside(self.module, self.optimizer)
        self.scaler = torch.amp.GradScaler(settings.device.type, enabled=settings.precision == "fp16")
        self.average = MovingAverage(self.module, recipe.ema) if recipe.ema else None
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.mirrored = torch.rand(len(material.train), generator=self.generator) < 0.5
        self.batch_size = min(recipe.batch_size, len(material.train))
        if recipe.epochs and self.batch_size < 2:
            raise RcompressError(
                "training", "BatchNorm needs two images a batch at least", "raise --batch-size"
            )
        settings.processes.share_of_batch(self.batch_size)
        self.steps_per_epoch = len(material.train) // self.batch_size
        self.history: list[Epoch] = []
        self.best = Best()
        parallel = settings.processes.parallel(self.module, settings.device)
        self._forward: Callable[[Tensor], Tensor] = torch.compile(parallel) if settings.compile else parallel

    @property
    def kept(self) -> nn.Module:
        """The network that is judged and kept: the moving average where there is one."""
        return self.module if self.average is None else self.average.module

    def run(self, after_epoch: Callable[[Trainer], None], progress: Progress = SILENT) -> nn.Module:
        """Train the epochs that are left; returns the network of the best validation epoch, in evaluation mode.

        Raises:
            RcompressError: the loss is no longer finite.
        """
        while len(self.history) < self.recipe.epochs:
            number = len(self.history) + 1
            progress.start(f"epoch {number}/{self.recipe.epochs}", self.steps_per_epoch * self.batch_size)
            self.history.append(self._epoch(number, progress))
            progress.note(_line(self.history[-1], self.recipe.epochs, self.material.judge))
            after_epoch(self)
        if self.best.state:
            self.kept.load_state_dict(self.best.state)
        return unsynchronised(self.kept).eval()

    def state(self) -> dict[str, Any]:
        """Tensors and primitives from which `restore` goes on."""
        return {
            "module": self.module.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generator": self.generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            "history": self.history,
            "best": vars(self.best),
            "constraints": [constraint.state() for constraint in self.guidance.constraints],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.module.load_state_dict(state["module"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_generator"])
        self.history = list(state["history"])
        self.best = Best(**state["best"])
        for constraint, kept in zip(self.guidance.constraints, state["constraints"], strict=True):
            constraint.restore(kept)

    def _epoch(self, number: int, progress: Progress) -> Epoch:
        device = str(self.settings.device)
        forget_peak(device)
        began = time.perf_counter()
        losses, correct = self._train_epoch(number, progress)
        images = self.steps_per_epoch * self.batch_size
        seconds, peak = time.perf_counter() - began, peak_held_bytes(device)
        constraints = self.guidance.constraints
        for constraint in constraints:
            constraint.project(self.kept)
        self.settings.processes.align(self.kept)
        scores = validate(self.kept, self.material.validation, self.material.preprocessing, self.settings)
        admitted = all(constraint.admits() for constraint in constraints)
        if admitted and scores.top1_percent >= self.best.top1_percent:
            state = {name: tensor.detach().clone() for name, tensor in self.kept.state_dict().items()}
            self.best = Best(scores.top1_percent, number, state)
        return {
            "epoch": number,
            "train_loss": losses / self.steps_per_epoch,
            "train_top1_percent": 100.0 * correct / images,
            "validation_loss": scores.loss,
            "validation_top1_percent": scores.top1_percent,
            "epoch_seconds": seconds,
            "images_per_second": images / seconds,
            "peak_memory_bytes": peak,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }

    def _train_epoch(self, number: int, progress: Progress) -> tuple[float, int]:
        """(sum of the batch losses, images classified correctly) over one pass."""
        self.module.train()
        device = self.settings.device
        loss_sum, correct = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
        order = torch.randperm(len(self.material.train), generator=self.generator)
        order = order[: self.steps_per_epoch * self.batch_size]  # a last, small batch would disturb BatchNorm
        share = self.settings.processes.share(self.batch_size)
        order = order.view(-1, self.batch_size)[:, share]
        batches = self.material.train.subset(order.flatten()).batches(len(share), augment=True)
        began = shown = time.perf_counter()
        for step, (images, labels) in enumerate(batches):
            mirrored = self._mirrored(order[step], number)
            inputs = self._augmented(images.to(device, non_blocking=True), mirrored, share)
            labels = labels.to(device, non_blocking=True)
            batch = self._batch(inputs, labels, order[step], mirrored, share, number)
            loss, hits = self._step(batch, number - 1 + step / self.steps_per_epoch)
            loss_sum += loss
            correct += hits
            progress.advance(self.batch_size)
            if time.perf_counter() - shown > REFRESH_SECONDS:
                shown = time.perf_counter()
                progress.advance(
                    0,
                    loss=float(loss_sum) / (step + 1),
                    top1=100.0 * float(correct) / ((step + 1) * len(share)),
                    images_per_s=(step + 1) * self.batch_size / (shown - began),
                )
        processes = self.settings.processes
        total = float(processes.sum(loss_sum)) / processes.count
        if not math.isfinite(total):
            raise RcompressError(
                "training", f"the loss is no longer finite (epoch {number})", "lower --learning-rate"
            )
        return total, int(processes.sum(correct))

    def _mirrored(self, where: Tensor, epoch: int) -> Tensor:
        """Each image is mirrored in every other epoch (Keller Jordan 2024, section 3.6)."""
        turned = self.mirrored[where] ^ bool(epoch % 2)
        return turned if self.material.augmentation.flip else torch.zeros_like(turned)

    def _augmented(self, images: Tensor, mirrored: Tensor, share: Tensor) -> Tensor:
        """Normalised inputs, cropped, mirrored, cut out.

        Random numbers are drawn for the whole batch in every process, so that each image meets the same ones
        whatever the number of processes. Not so what is drawn elsewhere: crops of image folders, dropout.
        """
        padding, side = self.material.augmentation.crop_padding, self.recipe.cutout
        inputs = normalize(images, self.material.preprocessing)
        if padding:
            inputs = shifted(inputs, padding, crop_shifts(self.batch_size, padding, self.generator)[share])
        if self.material.augmentation.flip:
            inputs = flip(inputs, mirrored)
        if side:
            height, width = images.shape[2:]
            centres = square_centres(self.batch_size, (height, width), self.generator)
            inputs = cutout(inputs, side, centres[share])
        return inputs.contiguous(memory_format=torch.channels_last)

    def _step(self, batch: Batch, epochs_done: float) -> tuple[Tensor, Tensor]:
        """One update; returns the loss and the number of images classified correctly."""
        self._set_learning_rate(epochs_done)
        for constraint in self.guidance.constraints:
            constraint.before_step(self.module, epochs_done)
        with self.settings.autocast():
            logits = self._forward(batch.inputs)
        loss = self._loss(logits.float(), batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._update()
        return loss.detach(), (logits.detach().argmax(1) == batch.labels).sum()

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        if self.guidance.loss is None:
            loss = F.cross_entropy(logits, batch.targets, label_smoothing=self.recipe.label_smoothing)
        else:
            loss = self.guidance.loss(logits, batch)
        penalties = (constraint.penalty(self.module) for constraint in self.guidance.constraints)
        return sum((penalty for penalty in penalties if penalty is not None), start=loss)

    def _update(self) -> None:
        """Gradients -> weights -> their average, with the constraints' say at each."""
        self.settings.processes.average_gradients(self._beside)
        if self.guidance.constraints:
            self.scaler.unscale_(self.optimizer)
        for constraint in self.guidance.constraints:
            constraint.after_backward(self.module)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for constraint in self.guidance.constraints:
            constraint.after_step(self.module)
        if self.average is not None:
            self.average.update()

    def _batch(
        self, inputs: Tensor, labels: Tensor, where: Tensor, mirrored: Tensor, share: Tensor, epoch: int
    ) -> Batch:
        """With mixup, inputs and one-hot targets are blended with another order of the process's share."""
        if not self.recipe.mixup:
            return Batch(inputs, labels, labels, where, mirrored, epoch)
        weight = float(torch.distributions.Beta(self.recipe.mixup, self.recipe.mixup).sample())
        order = torch.randperm(self.batch_size, generator=self.generator)  # as many draws in every process
        other = order[share].argsort().to(labels.device)
        targets = F.one_hot(labels, len(self.material.preprocessing.class_names)).float()
        mixed = inputs.lerp(inputs[other], 1 - weight)
        blended = targets.lerp(targets[other], 1 - weight)
        return Batch(mixed, labels, blended, where, mirrored, epoch)

    def _set_learning_rate(self, epochs_done: float) -> None:
        factor = learning_rate_factor(self.recipe, epochs_done / self.recipe.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * factor * group.get("lr_scale", 1.0)


def validate(
    module: nn.Module,
    split: Split,
    preprocessing: Preprocessing,
    settings: Settings,
    progress: Progress = SILENT,
) -> Scores:
    """Score ``module`` on ``split`` in the precision of the run, each process its share of the images."""
    module.eval()
    tally = Tally()
    share = split.subset(settings.processes.share(len(split)))
    with torch.inference_mode(), settings.autocast():
        batches = share.batches(EVALUATION_BATCH)
        for images, labels in tracked(batches, -(-len(share) // EVALUATION_BATCH), "scoring", progress):
            inputs = normalize(images.to(settings.device), preprocessing)
            tally.add(module(inputs.contiguous(memory_format=torch.channels_last)), labels)
    tally.combine(lambda counts: settings.processes.sum(counts.to(settings.device)).cpu())
    return tally.scores()


def _outside(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """What is trained beside the network's own parameters."""
    own = set(module.parameters())
    return [p for group in optimizer.param_groups for p in group["params"] if p not in own]


def _line(epoch: Epoch, epochs: int, judge: str) -> str:
    return (
        f"epoch {epoch['epoch']}/{epochs}  loss {epoch['train_loss']:.4f}  "
        f"train {epoch['train_top1_percent']:.2f} %  {judge} {epoch['validation_top1_percent']:.2f} %  "
        f"{epoch['images_per_second']:,.0f} images/s"
    )
