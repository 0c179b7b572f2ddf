"""Our INT8 engines against PyTorch, torch FX INT8, ONNX Runtime's and NNCF's INT8, and the core's limit."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
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
    makers: dict[str, Callable[[], Call]] = {
        "torch FX INT8": lambda: torch_call(fx_int8(module), batch),
        "ONNX Runtime's own INT8": lambda: files.call(onnxruntime_int8(model), "onnxruntime", batch),
        "NNCF in OpenVINO": lambda: nncf_int8(model, batch),
    }
    missing = {}
    for name, make in makers.items():
        try:
            calls[name] = make()
        except ImportError as error:
            missing[name] = f"not here ({error.name})"
    return missing


def fx_int8(module: nn.Module) -> nn.Module:
    """PyTorch's own INT8 by FX graph mode, x86 kernels (ImportError once PyTorch has dropped it)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces the end of this API
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

        torch.backends.quantized.engine = "x86"
        images = torch.randn(16, *CIFAR_INPUT)
        prepared = prepare_fx(module, get_default_qconfig_mapping("x86"), (images,))
        with torch.inference_mode():
            prepared(images)
        converted: nn.Module = convert_fx(prepared)
    return converted


def onnxruntime_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """ONNX Runtime's static quantizer by its CPU advice: Q/DQ, unsigned activations, weights per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            images = np.random.default_rng(0).standard_normal((16, *CIFAR_INPUT), dtype=np.float32)
            self._rest: Iterator[dict[str, np.ndarray]] = iter([{model.graph.input[0].name: images}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._rest, None)

    own = onnx.ModelProto()
    own.CopyFrom(model)  # the quantizer moves the weights of what it is given into a file
    with tempfile.TemporaryDirectory() as folder, _quiet_logging():
        target = Path(folder) / "int8.onnx"
        quantize_static(
            own,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        return onnx.load(target)


def nncf_int8(model: onnx.ModelProto, batch: int) -> Call:
    """NNCF's post-training quantization of the OpenVINO model, on one thread."""
    import nncf
    import openvino

    core = openvino.Core()
    images = np.random.default_rng(0).standard_normal((16, *CIFAR_INPUT), dtype=np.float32)
    network = nncf.quantize(core.read_model(model.SerializeToString()), nncf.Dataset([images]))
    network.reshape([batch, *CIFAR_INPUT])
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(np.resize(images, (batch, *CIFAR_INPUT)))))
    return request.infer


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


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """ONNX Runtime's quantizer advises through the root logger."""
    import logging

    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
