"""To which multiple widths of pruned and ranks of factorized networks should be rounded: time at equal MACs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx
from torch import nn

from rcompress.cli.output import print_table
from rcompress.engines import Backend
from rcompress.measure.latency import Call, Latency, time_interleaved
from rcompress.methods.factorize import FactorizeOptions, factorize
from tests.benchmarks.common import (
    CIFAR_INPUT,
    EngineFiles,
    Terminal,
    effort,
    exported,
    macs_of,
    network,
    quantized,
)

MULTIPLES = (1, 4, 8, 16, 32)
BATCHES = (1, 64)
ENGINES: dict[str, tuple[Backend, bool]] = {
    "OpenVINO FP32": ("openvino", False),
    "OpenVINO INT8": ("openvino", True),
    "ONNX Runtime FP32": ("onnxruntime", False),
    "ONNX Runtime INT8": ("onnxruntime", True),
}
SEARCH_STEPS = 9


def run(smoke: bool) -> None:
    """One table for each network: all multiples in turn, times scaled to the same MACs."""
    for how, arch, ratio in CASES:
        made = WAYS[how]
        target = macs_of(made(arch, ratio, 1))
        candidates = {multiple: _nearest(made, arch, multiple, target) for multiple in MULTIPLES}
        rows = []
        for batch in BATCHES if not smoke else (1,):
            for engine in ENGINES:
                rows.append([engine, str(batch), *_times(candidates, target, engine, batch, smoke)])
        columns = [
            "engine",
            "batch",
            *(f"{m}: {macs / 1e6:.1f} MMACs" for m, (_, macs) in candidates.items()),
        ]
        heading = (
            f"{arch} {how} to {target / 1e6:.1f} MMACs (ratio {ratio}), rounded to a multiple; "
            "ms scaled to those MACs, 1 thread, ± over trials"
        )
        print_table(heading, columns, rows, left=2)


def _factorized(arch: str, ratio: float, round_to: int) -> nn.Module:
    module = network(arch)
    factorize(module, CIFAR_INPUT, FactorizeOptions(ratio=ratio, ignore=("fc",), round_to=round_to))
    return module


Way = Callable[[str, float, int], nn.Module]
WAYS: dict[str, Way] = {"pruned": network, "factorized": _factorized}
CASES = (
    ("pruned", "resnet18", 0.6),
    ("pruned", "resnet20", 0.5),
    ("factorized", "resnet18", 0.65),
    ("factorized", "resnet20", 0.35),
)


def _nearest(made: Way, arch: str, multiple: int, target: int) -> tuple[onnx.ModelProto, int]:
    """The graph, of a network in this multiple, whose MACs are nearest to ``target``, and its MACs."""
    low, high, best = 0.02, 0.98, None
    for _ in range(SEARCH_STEPS):
        ratio = (low + high) / 2
        module = made(arch, ratio, multiple)
        macs = macs_of(module)
        if best is None or abs(macs - target) < abs(best[1] - target):
            best = (module, macs)
        low, high = (ratio, high) if macs > target else (low, ratio)
    assert best is not None
    return exported(best[0], arch), best[1]


def _times(
    candidates: dict[int, tuple[onnx.ModelProto, int]], target: int, engine: str, batch: int, smoke: bool
) -> list[str]:
    backend, int8 = ENGINES[engine]
    amount = effort(smoke)
    with tempfile.TemporaryDirectory() as folder:
        files = EngineFiles(Path(folder))
        calls: dict[str, Call] = {
            str(multiple): files.call(quantized(model) if int8 else model, backend, batch)
            for multiple, (model, _) in candidates.items()
        }
        found = time_interleaved(calls, amount.warmup, amount.iterations, amount.trials, Terminal())
    macs = [macs for _, macs in candidates.values()]
    return [_cell(latency, target / count) for latency, count in zip(found, macs, strict=True)]


def _cell(latency: Latency, scale: float) -> str:
    metrics = latency.metrics(1)
    return f"{metrics['latency_p50_ms'] * scale:.3f} ±{metrics['latency_p50_ms_std'] * scale:.3f}"
