"""To which multiple widths should be rounded here: measured on a chain of convolutions, in the engine itself."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rcompress.engines import Backend, BuildOptions, RunOptions, build_engine, load_engine
from rcompress.engines.inputs import random_inputs
from rcompress.engines.selection import SUFFIXES
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
    with tempfile.TemporaryDirectory(prefix="rcompress-") as folder, ExitStack() as stack:
        calls = {}
        for width in widths:
            path = Path(folder) / f"{width}{SUFFIXES[backend]}"
            build_engine(_chain(width), None, path, backend, BuildOptions(batch_range=(1, 1, 1)))
            engine = stack.enter_context(closing(load_engine(path, backend, RunOptions("auto", threads))))
            calls[str(width)] = engine.prepare(random_inputs(engine.info, 1))
        found = time_interleaved(calls, trials=trials, progress=progress)
    return {int(latency.name): latency.p50_ms / int(latency.name) ** 2 for latency in found}


def _chain(width: int) -> onnx.ModelProto:
    """3x3 convolutions with ReLUs from (1, width, 16, 16) to the same: MACs grow with the square of ``width``."""
    generator = np.random.default_rng(0)
    nodes, weights = [], []
    for layer in range(DEPTH):
        values = generator.standard_normal((width, width, 3, 3), dtype=np.float32) / (3 * np.sqrt(width))
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"weight{layer}"))
        convolved = [f"x{layer}", f"weight{layer}"]
        nodes.append(helper.make_node("Conv", convolved, [f"y{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"y{layer}"], [f"x{layer + 1}"]))
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, width, SIDE, SIDE])
        for name in ("x0", f"x{DEPTH}")
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
