"""Training images/s: our loop against the plain script (FP32, DataLoader, torchvision transforms on PIL)."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from rcompress.artifacts.spec import Preprocessing
from rcompress.cli.output import print_table
from rcompress.data import Augmentation, MemorySource, Split, open_dataset
from rcompress.measure.lock import timing_lock
from rcompress.models import build_model
from rcompress.training import RECIPES, Material, Settings, Trainer, resolve_precision
from tests.benchmarks.common import Terminal

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
PREPROCESSING = Preprocessing((3, 32, 32), MEAN, STD, class_names=tuple("0123456789"))
BATCH = 128
CHUNK = {"resnet20": 16 * BATCH, "resnet18": 4 * BATCH}
TRIALS = 7
WORKERS = 2
TARGET = 2.4


def run(smoke: bool) -> None:
    """Print images/s of both loops, chunk by chunk in turn, and their ratio."""
    rows = []
    for arch, size in CHUNK.items():
        chunk, trials = (BATCH, 1) if smoke else (size, TRIALS)
        source, name = _images(chunk)
        with timing_lock(Terminal()):
            ours, plain = _in_turn(arch, source, trials)
        rows.append([arch, name, *_cells(ours), *_cells(plain), *_ratio_cells(ours, plain)])
    precision = resolve_precision("auto", torch.device("cpu"))
    print_table(
        f"training, {torch.get_num_threads()} threads, batch {BATCH}; ours: {precision} and channels_last; "
        f"plain: FP32, DataLoader with {WORKERS} workers; at least {TARGET}x is wanted where there is BF16",
        ["network", "data", "ours images/s", "±", "plain images/s", "±", "ratio", "(trials)"],
        rows,
        left=2,
    )


def _images(count: int) -> tuple[MemorySource, str]:
    """Real CIFAR-10 where $RCOMPRESS_TEST_DATA has it, else noise of the same size."""
    root = os.environ.get("RCOMPRESS_TEST_DATA")
    if root and (Path(root) / "data" / "cifar10").is_dir():
        split = open_dataset("cifar10", Path(root) / "data").split("train").subset(torch.arange(count))
        images, labels = next(split.batches(count))
        return MemorySource(images, labels), "CIFAR-10"
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return MemorySource(images, torch.randint(0, 10, (count,), generator=generator)), "noise"


def _in_turn(arch: str, source: MemorySource, trials: int) -> tuple[list[float], list[float]]:
    """Images/s of each chunk of ours and of the plain loop, which runs whenever ours has ended an epoch."""
    everything = Split(source, torch.arange(len(source.labels)))
    material = Material(everything, everything.subset(torch.arange(16)), PREPROCESSING, Augmentation(4, True))
    device = torch.device("cpu")
    settings = Settings(device, resolve_precision("auto", device))
    recipe = replace(RECIPES["default"], epochs=trials + 1, batch_size=BATCH)
    script = PlainScript(arch, source)
    plain: list[float] = []
    trainer = Trainer(build_model(arch, 10), material, recipe, settings)
    trainer.run(lambda _: plain.append(script.epoch()))
    return [epoch["images_per_second"] for epoch in trainer.history][1:], plain[1:]  # the first one warms up


class PilImages(TorchDataset[tuple[Tensor, int]]):
    """Images as the usual script has them: PIL, transformed one by one."""

    def __init__(self, source: MemorySource) -> None:
        self._images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in source.images]
        self._labels = source.labels.tolist()
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._images[index]), self._labels[index]


class PlainScript:
    """What one writes first: FP32, SGD, a DataLoader."""

    def __init__(self, arch: str, source: MemorySource) -> None:
        self._module: nn.Module = build_model(arch, 10).train()
        self._optimizer = torch.optim.SGD(
            self._module.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
        )
        self._loader = DataLoader(
            PilImages(source),
            batch_size=BATCH,
            shuffle=True,
            num_workers=WORKERS,
            persistent_workers=True,
            drop_last=True,
        )

    def epoch(self) -> float:
        """One pass; images/s."""
        began, images = time.perf_counter(), 0
        for inputs, labels in self._loader:
            loss = F.cross_entropy(self._module(inputs), labels)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            images += len(labels)
        return images / (time.perf_counter() - began)


def _cells(rates: list[float]) -> list[str]:
    spread = statistics.stdev(rates) if len(rates) > 1 else 0.0
    return [f"{statistics.median(rates):,.0f}", f"{spread:,.0f}"]


def _ratio_cells(ours: list[float], plain: list[float]) -> list[str]:
    ratios = [mine / theirs for mine, theirs in zip(ours, plain, strict=True)]
    return [f"{statistics.median(ratios):.2f}x", f"{min(ratios):.2f}-{max(ratios):.2f}"]
