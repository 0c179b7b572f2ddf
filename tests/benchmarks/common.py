"""What the benchmarks share: the machine in one line, networks to time, their files."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import psutil
import torch
from torch import nn

from rcompress.artifacts.machine import machine_summary, package_versions
from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.engines import Backend, RunOptions, build_engine, load_engine
from rcompress.engines.inputs import random_inputs
from rcompress.export import onnx_from_module
from rcompress.measure.complexity import module_complexity
from rcompress.measure.latency import Call, Latency
from rcompress.methods.prune import PruneOptions, prune
from rcompress.methods.quantize import QuantizeOptions, quantize_onnx
from rcompress.models import build_model

CIFAR_INPUT = (3, 32, 32)
ONE_THREAD = RunOptions(threads=1)


@dataclass(frozen=True)
class Effort:
    """How much to measure."""

    trials: int
    iterations: int | None
    warmup: int


def effort(smoke: bool) -> Effort:
    """Enough to trust, or just enough to see that it runs."""
    return Effort(1, 2, 1) if smoke else Effort(7, None, 10)


def describe_machine(smoke: bool) -> str:
    """What every figure below depends on."""
    machine, versions = machine_summary(), package_versions()
    busy = psutil.cpu_percent(interval=0.5)
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['instruction_set']} "
        f"({' '.join(machine['features'])}), {busy:.0f} % busy at the start",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]
    return "\n".join([*lines, "SMOKE RUN: these figures mean nothing"] if smoke else lines)


def network(arch: str, ratio: float = 0.0, round_to: int | None = None) -> nn.Module:
    """An untrained network for 32x32 images, pruned by ``ratio``; as fast as a trained one."""
    torch.manual_seed(0)
    module = build_model(arch, 10).eval()
    if ratio:
        options = PruneOptions(ratio) if round_to is None else PruneOptions(ratio, round_to=round_to)
        prune(module, CIFAR_INPUT, options)
    return module


def macs_of(module: nn.Module) -> int:
    """MACs of one image."""
    macs = module_complexity(module, CIFAR_INPUT).macs
    assert macs is not None
    return macs


def spec_of(arch: str | None) -> ModelSpec:
    """A description, as the files want one."""
    return ModelSpec(10, Preprocessing(CIFAR_INPUT, (0.5,) * 3, (0.25,) * 3), arch=arch)


def exported(module: nn.Module, arch: str) -> onnx.ModelProto:
    """The FP32 graph of ``module``, BatchNorm folded."""
    return onnx_from_module(module, spec_of(arch))


def quantized(model: onnx.ModelProto, shape: tuple[int, ...] = CIFAR_INPUT) -> onnx.ModelProto:
    """Our INT8 graph for CPUs; the values it is calibrated on do not change its speed."""
    images = torch.randn(16, *shape, generator=torch.Generator().manual_seed(0))
    return quantize_onnx(model, [images], len(images), QuantizeOptions(profile="cpu")).model


class EngineFiles:
    """Builds engines of graphs in a folder and makes calls of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def call(self, model: onnx.ModelProto, backend: Backend, batch: int) -> Call:
        """One call of ``model`` in ``backend`` on one thread, inputs in place."""
        self._count += 1
        suffix = ".onnx" if backend == "onnxruntime" else ".xml"
        path = build_engine(model, spec_of(None), self._folder / f"{self._count}{suffix}", backend)
        engine = load_engine(path, backend, ONE_THREAD)
        return engine.prepare(random_inputs(engine.info, batch))


def torch_call(module: nn.Module, batch: int) -> Call:
    """One eager call of ``module`` on one thread."""
    images = torch.randn(batch, *CIFAR_INPUT)
    torch.set_num_threads(1)

    @torch.inference_mode()
    def call() -> Any:
        return module(images)

    return call


def latency_cells(latency: Latency) -> list[str]:
    """p50 with the spread of the trials' medians, in ms."""
    metrics = latency.metrics(1)
    return [f"{metrics['latency_p50_ms']:.3f}", f"{metrics['latency_p50_ms_std']:.3f}"]


class Terminal:
    """Progress on stderr, one line each, so that stdout holds the tables alone."""

    def start(self, description: str, total: int) -> None: ...

    def advance(self, units: int = 1, **figures: float) -> None: ...

    def note(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """PyTorch's thread count for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
