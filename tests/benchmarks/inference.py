"""Our INT8 engines against PyTorch, torch FX INT8, ONNX Runtime's and NNCF's INT8, and the core's limit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from rcompress.cli.output import print_table
from rcompress.measure.complexity import graph_complexity
from rcompress.measure.latency import Call, Latency, time_interleaved
from tests.benchmarks.common import (
    CIFAR_INPUT,
    EngineFiles,
    Terminal,
    effort,
    exported,
    latency_cells,
    macs_of,
    network,
    quantized,
    torch_call,
    torch_threads,
)
from tests.benchmarks.others import fx_int8, nncf_int8, onnxruntime_int8, openvino_request

NETWORKS: dict[str, tuple[str, float]] = {
    "ResNet-18": ("resnet18", 0.0),
    "ResNet-18, 60 % pruned": ("resnet18", 0.6),
    "ResNet-20": ("resnet20", 0.0),
}
BATCHES = (1, 64)
OURS = ("ours, OpenVINO", "ours, ONNX Runtime")
LIMIT = "limit (256-channel chain)"
CHAIN_WIDTH, CHAIN_SIDE, CHAIN_LENGTH = 256, 16, 8


def run(smoke: bool) -> None:
    """One interleaved table for each network and batch size."""
    for title, (arch, ratio) in NETWORKS.items():
        for batch in BATCHES if not smoke else (1,):
            with tempfile.TemporaryDirectory() as folder, torch_threads(1):
                _table(title, network(arch, ratio), arch, batch, EngineFiles(Path(folder)), smoke)


def _table(title: str, module: nn.Module, arch: str, batch: int, files: EngineFiles, smoke: bool) -> None:
    model = exported(module, arch)
    calls: dict[str, Call] = {"PyTorch FP32": torch_call(module, batch)}
    missing = _add_others(calls, module, model, files, batch)
    own = quantized(model)
    for name, backend in zip(OURS, ("openvino", "onnxruntime"), strict=True):
        calls[name] = files.call(own, backend, batch)
    chain = quantized(convolution_chain(), (CHAIN_WIDTH, CHAIN_SIDE, CHAIN_SIDE))
    calls[LIMIT] = files.call(chain, "openvino", 1)

    amount = effort(smoke)
    found = time_interleaved(calls, amount.warmup, amount.iterations, amount.trials, Terminal())
    limit = _rate(found[-1], graph_complexity(chain).macs or 0, 1)
    rows = [_row(latency, macs_of(module), batch, limit) for latency in found[:-1]]
    rows += [[name, reason, "", "", "", "", ""] for name, reason in missing.items()]
    rows.append([LIMIT, *latency_cells(found[-1]), "", "", f"{limit / 1e12:.3f}", "100 %"])
    columns = ["engine", "p50 ms", "±", "vs PyTorch", "(trials)", "TMAC/s", "of the limit"]
    heading = f"{title}, {macs_of(module) / 1e6:.1f} MMACs, batch {batch}, 1 thread; {_verdict(found)}"
    print_table(heading, columns, rows)


def _add_others(
    calls: dict[str, Call], module: nn.Module, model: onnx.ModelProto, files: EngineFiles, batch: int
) -> dict[str, str]:
    """Put the other makers' INT8 into ``calls``; returns those that are not here, with the reason."""
    images = [np.random.default_rng(0).standard_normal((16, *CIFAR_INPUT), dtype=np.float32)]
    inputs = np.resize(images[0], (batch, *CIFAR_INPUT))
    makers: dict[str, Callable[[], Call]] = {
        "torch FX INT8": lambda: torch_call(fx_int8(module, images), batch),
        "ONNX Runtime's own INT8": lambda: files.call(onnxruntime_int8(model, images), "onnxruntime", batch),
        "NNCF in OpenVINO": lambda: openvino_request(nncf_int8(model, images), inputs).infer,
    }
    missing = {}
    for name, make in makers.items():
        try:
            calls[name] = make()
        except ImportError as error:
            missing[name] = f"not here ({error.name})"
    return missing


def convolution_chain() -> onnx.ModelProto:
    """3x3 convolutions of equal width, one after the other: what the core can do at best in practice."""
    generator = np.random.default_rng(0)
    shape = (CHAIN_WIDTH, CHAIN_WIDTH, 3, 3)
    tensors, nodes, last = [], [], "images"
    for i in range(CHAIN_LENGTH):
        weights = generator.standard_normal(shape, dtype=np.float32) * 0.03
        tensors.append(numpy_helper.from_array(weights, f"w{i}"))
        nodes.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], name=f"conv{i}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], name=f"relu{i}"))
        last = f"r{i}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["logits"]))
    sizes = [CHAIN_WIDTH, CHAIN_SIDE, CHAIN_SIDE]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *sizes])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CHAIN_WIDTH])]
    graph = helper.make_graph(nodes, "chain", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _row(latency: Latency, macs: int, batch: int, limit: float) -> list[str]:
    metrics, rate = latency.metrics(batch), _rate(latency, macs, batch)
    speedups = f"{metrics['latency_speedup_low']:.2f}-{metrics['latency_speedup_high']:.2f}"
    share = f"{100 * rate / limit:.0f} %"
    return [
        latency.name,
        *latency_cells(latency),
        f"{metrics['latency_speedup']:.2f}x",
        speedups,
        f"{rate / 1e12:.3f}",
        share,
    ]


def _rate(latency: Latency, macs: int, batch: int) -> float:
    """MACs a second."""
    return macs * batch / (latency.p50_ms / 1000)


def _verdict(found: list[Latency]) -> str:
    """Our best against the best of the others, by medians."""
    ours = min((x for x in found if x.name in OURS), key=lambda x: x.p50_ms)
    other = min((x for x in found if x.name not in (*OURS, LIMIT)), key=lambda x: x.p50_ms)
    return f"best: {ours.name}, {other.p50_ms / ours.p50_ms:.2f}x as fast as {other.name}"
