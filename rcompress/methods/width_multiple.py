"""To which multiple widths should be rounded here: measured on a chain of convolutions, in the engine itself."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.engines import Backend, BuildOptions, RunOptions, build_engine, load_engine
from rcompress.engines.inputs import random_inputs
from rcompress.engines.selection import SUFFIXES
from rcompress.export import onnx_from_module
from rcompress.measure.complexity import module_complexity
from rcompress.measure.latency import time_interleaved
from rcompress.progress import SILENT, Progress

COARSEST = 32
OFFSETS = {
    1: (13, 19),
    4: (4, 28),
    8: (8, 24),
    16: (16,),
}  # widths between two multiples of 32, by their multiple
TOLERATED = 1.05  # a finer multiple may cost so much for each MAC: it leaves more choice
DEPTH, SIDE = 4, 16


@dataclass(frozen=True)
class FastestMultiple:
    """What was measured.

    Attributes:
        multiple: the finest one that costs no more than `TOLERATED`, as all coarser ones do.
        cost: by multiple, time for each MAC against what widths that are multiples of 32 around it take.
        base: the width around which it was measured.
        backend: the runtime that ran it.
    """

    multiple: int
    cost: dict[int, float]
    base: int
    backend: Backend

    def __str__(self) -> str:
        told = ", ".join(f"{multiple}: {cost:.2f}" for multiple, cost in sorted(self.cost.items()))
        return (
            f"widths at multiples of {self.multiple}: time per MAC in {self.backend} against multiples of "
            f"{COARSEST}, around {self.base} channels: {told}"
        )


def fastest_multiple(
    widths: Iterable[int],
    backend: Backend = "openvino",
    threads: int = 0,
    trials: int = 5,
    progress: Progress = SILENT,
) -> FastestMultiple:
    """Time chains of 3x3 convolutions between two multiples of 32 near half of the widest of ``widths``.

    Args:
        widths: of the network that is to be pruned.
        backend: FP32, one image.
        threads: 0 for all cores.
        trials: see `time_interleaved`.

    Raises:
        RcompressError: the backend is not here.
    """
    base = max(COARSEST, round(max(widths) / 2 / COARSEST) * COARSEST)
    between = sorted({base + offset for offsets in OFFSETS.values() for offset in offsets})
    per_mac = _times_per_mac([base, *between, base + COARSEST], backend, threads, trials, progress)
    cost = {
        multiple: statistics.fmean(_cost(per_mac, base, base + offset) for offset in offsets)
        for multiple, offsets in OFFSETS.items()
    }
    return FastestMultiple(choose_multiple(cost), cost, base, backend)


def choose_multiple(cost: Mapping[int, float]) -> int:
    """The finest multiple such that it and all coarser ones cost no more than `TOLERATED`."""
    chosen = COARSEST
    for multiple in sorted(cost, reverse=True):
        if cost[multiple] > TOLERATED:
            break
        chosen = multiple
    return chosen


def _cost(per_mac: Mapping[int, float], base: int, width: int) -> float:
    """Against the straight line between the two multiples of 32: wider layers are a little faster for each MAC."""
    share = (width - base) / COARSEST
    return per_mac[width] / ((1 - share) * per_mac[base] + share * per_mac[base + COARSEST])


def _times_per_mac(
    widths: list[int], backend: Backend, threads: int, trials: int, progress: Progress
) -> dict[int, float]:
    """Median milliseconds for each MAC, by width, all taking turns in one run."""
    spec = ModelSpec(10, Preprocessing((3, SIDE, SIDE), (0.5,) * 3, (0.5,) * 3))
    progress.start("building chains of convolutions", len(widths))
    with tempfile.TemporaryDirectory(prefix="rcompress-") as folder, ExitStack() as stack:
        calls, macs = {}, {}
        for width in widths:
            chain = _chain(width)
            macs[str(width)] = module_complexity(chain, (3, SIDE, SIDE)).macs or 0
            path = Path(folder) / f"{width}{SUFFIXES[backend]}"
            options = replace(BuildOptions(), batch_range=(1, 1, 1))
            build_engine(onnx_from_module(chain, spec), spec, path, backend, options)
            engine = stack.enter_context(closing(load_engine(path, backend, RunOptions("auto", threads))))
            calls[str(width)] = engine.prepare(random_inputs(engine.info, 1))
            progress.advance()
        found = time_interleaved(calls, trials=trials, progress=progress)
    return {int(latency.name): latency.p50_ms / macs[latency.name] for latency in found}


def _chain(width: int) -> nn.Module:
    """Convolutions whose inputs and outputs all have ``width`` channels, between an image and ten classes."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 1)]
    for _ in range(DEPTH):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)).eval()
