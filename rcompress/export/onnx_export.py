"""PyTorch module -> ONNX: one file, batch axis free, BatchNorm folded, simplified, checked against the source."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnxruntime
import onnxsim
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rcompress.artifacts.onnx_file import stamp
from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.errors import RcompressError

INPUT, OUTPUT, BATCH = "images", "logits", "batch"
TOLERANCE = 1e-3
CHECK_BATCH = 3


@dataclass(frozen=True)
class Exported:
    """The graph, the largest absolute difference of its logits from the module's, and its description."""

    model: onnx.ModelProto
    max_abs_difference: float
    spec: ModelSpec


def export_onnx(module: nn.Module, spec: ModelSpec, with_preprocessing: bool = False) -> Exported:
    """Convert and compare through ONNX Runtime on random images.

    Args:
        module: in evaluation mode, on the CPU.
        spec: its description; the graph carries it.
        with_preprocessing: take uint8 (N, H, W, C) of any height and width, resize (antialiased, to the network's
            own size, so that other proportions are stretched) and normalise in the graph.

    Raises:
        RcompressError: it cannot be exported, or the outputs differ by more than the tolerance.
    """
    if with_preprocessing:
        if spec.preprocessing.resize is not None:
            raise RcompressError(
                "--with-preprocessing",
                "this network's images are resized by their shorter side and cropped, which graphs do not hold",
                "export without it and prepare the images yourself (see rcompress inspect)",
            )
        spec = replace(spec, preprocessing=replace(spec.preprocessing, in_graph=True))
        module = Preprocessed(module, spec.preprocessing).eval()
    example = example_input(spec.preprocessing, CHECK_BATCH)
    model = _simplified(_converted(module, example))
    _tidy(model)
    stamp(model, spec)
    onnx.checker.check_model(model, full_check=True)
    return Exported(model, _difference(model, module, example), spec)


def onnx_from_module(module: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    """The stamped graph of ``module``; see `export_onnx`."""
    return export_onnx(module, spec).model


class Preprocessed(nn.Module):
    """A network behind its own preprocessing: uint8 (N, H, W, C) in, logits out."""

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.module = module
        self.size = list(preprocessing.input_size[1:])
        self.register_buffer("mean", 255.0 * torch.tensor(preprocessing.mean).view(1, -1, 1, 1))
        self.register_buffer("std", 255.0 * torch.tensor(preprocessing.std).view(1, -1, 1, 1))
        self.interpolation = preprocessing.interpolation

    def forward(self, images: Tensor) -> Tensor:
        """Logits of uint8 images of any size."""
        x = images.permute(0, 3, 1, 2).float()
        x = F.interpolate(x, size=self.size, mode=self.interpolation, align_corners=False, antialias=True)
        return self.module((x - self.mean) / self.std)  # type: ignore[no-any-return]


def example_input(preprocessing: Preprocessing, batch_size: int) -> Tensor:
    """Random images as the network takes them: float32 (N, C, H, W), or uint8 (N, H, W, C)."""
    channels, height, width = preprocessing.input_size
    generator = torch.Generator().manual_seed(0)
    if preprocessing.in_graph:
        return torch.randint(
            256, (batch_size, height, width, channels), dtype=torch.uint8, generator=generator
        )
    return torch.randn(batch_size, channels, height, width, generator=generator)


def _converted(module: nn.Module, example: Tensor) -> onnx.ModelProto:
    axes: dict[int, object] = {0: torch.export.Dim(BATCH)}
    if example.dtype == torch.uint8:
        axes |= {1: torch.export.Dim("height"), 2: torch.export.Dim("width")}
    with exporting(), _silenced():
        program = torch.onnx.export(
            row_major(module),
            (example,),
            dynamo=True,
            dynamic_shapes=(axes,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """Around one of PyTorch's exporters, which raise many kinds of errors: the first line says which layer it is."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RcompressError(
            "export", f"PyTorch cannot export this network ({reason})", "simplify its forward"
        ) from error


def row_major(module: nn.Module) -> nn.Module:
    """A copy of ``module`` whose tensors lie in memory in the order of their axes.

    Of weights in channels-last order, and be they 1 x 1, PyTorch concludes that so are the outputs, and exports a
    flattening of them as arithmetic on addresses, whose shapes no engine can tell.
    """
    copied = copy.deepcopy(module)
    for tensor in (*copied.parameters(), *copied.buffers()):
        tensor.data = tensor.data.reshape(-1).view(tensor.shape)
    return copied


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    simplified, same = onnxsim.simplify(model)
    if not same:
        raise RcompressError("export", "onnxsim changed the outputs while simplifying", "report this network")
    result: onnx.ModelProto = simplified
    return result


def _tidy(model: onnx.ModelProto) -> None:
    """Name layers after their weights (``layer1.0.conv1``); drop the exporter's traces, a tenth of a small file."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        weights = [name for name in node.input if name in initializers and name.endswith(".weight")]
        if len(weights) == 1:
            node.name = weights[0].removesuffix(".weight")
        del node.metadata_props[:]
        node.doc_string = ""
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    del graph.metadata_props[:]
    del model.metadata_props[:]
    graph.doc_string = model.doc_string = ""


def _difference(model: onnx.ModelProto, module: nn.Module, example: Tensor) -> float:
    """Largest absolute difference of the logits between PyTorch and ONNX Runtime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = module(example).numpy()
    found = session.run([OUTPUT], {INPUT: example.numpy()})[0]
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise RcompressError(
            "export",
            f"ONNX Runtime's outputs differ from PyTorch's by {difference:.3g}",
            "report this network",
        )
    return difference


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """The exporter prints to stdout, logs, and warns of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
