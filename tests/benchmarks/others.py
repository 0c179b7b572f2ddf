"""The quantizers of others, each by its own advice for CPUs: what ours is held against."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

Batches = Sequence[NDArray[np.float32]]
"""Network inputs (N, C, H, W)."""


def fx_int8(module: nn.Module, batches: Batches) -> nn.Module:
    """PyTorch's own INT8 by FX graph mode, x86 kernels (ImportError once PyTorch has dropped it)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces the end of this API
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

        torch.backends.quantized.engine = "x86"
        prepared = prepare_fx(module, get_default_qconfig_mapping("x86"), (torch.from_numpy(batches[0]),))
        with torch.inference_mode():
            for images in batches:
                prepared(torch.from_numpy(images))
        converted: nn.Module = convert_fx(prepared)
    return converted


def onnxruntime_int8(model: onnx.ModelProto, batches: Batches, per_channel: bool = True) -> onnx.ModelProto:
    """ONNX Runtime's static quantizer: Q/DQ, unsigned activations, signed weights."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            name = model.graph.input[0].name
            self._rest: Iterator[dict[str, np.ndarray]] = iter([{name: images} for images in batches])

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
            per_channel=per_channel,
        )
        return onnx.load(target)


def nncf_int8(model: onnx.ModelProto, batches: Batches) -> Any:
    """NNCF's post-training quantization of the OpenVINO model (ImportError where it is not installed)."""
    import nncf
    import openvino

    count = sum(len(images) for images in batches)
    images = np.concatenate(list(batches))
    dataset = nncf.Dataset([images[i : i + 1] for i in range(count)])
    with _quiet_logging():
        network = openvino.Core().read_model(model.SerializeToString())
        return nncf.quantize(network, dataset, subset_size=count)


def openvino_request(network: Any, images: NDArray[np.float32]) -> Any:
    """An inference request of ``network`` for inputs of that shape, on one thread, in FP32 where it is not INT8."""
    import openvino

    network.reshape(list(images.shape))
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(network, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(images)))
    return request


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """They advise through the root logger."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
