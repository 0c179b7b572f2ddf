"""Mending a quantized graph layer by layer against the float one: learned rounding, corrected biases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from rcompress.engines.fake_quantize import along
from rcompress.engines.torch_graph import tensor_of
from rcompress.errors import RcompressError
from rcompress.methods.adaround import Rounding, rounded
from rcompress.methods.graph_view import GraphView
from rcompress.methods.layer_rows import graph_form, layer_rows, matrix_form
from rcompress.methods.lockstep import Walk
from rcompress.progress import SILENT, Progress

ROWS = 32768  # positions on which one layer's rounding is learned
LEVELS: dict[int, int] = {TensorProto.INT8: 127, TensorProto.INT4: 7}


@dataclass(frozen=True)
class ReconstructionOptions:
    """What to mend.

    Attributes:
        adaround: steps of `adaround.rounded` for each layer; 0 leaves the rounding.
        bias_correction: whether biases take up the mean error of each channel.
        device: where it runs.
        seed: of the positions and batches drawn.
    """

    adaround: int = 0
    bias_correction: bool = False
    device: str = "cpu"
    seed: int = 0

    @property
    def mends(self) -> bool:
        """Whether there is anything to do."""
        return self.adaround > 0 or self.bias_correction


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer with integer weights: its node, and the DequantizeLinear in front of its weights."""

    node: NodeProto
    dequantizer: NodeProto

    @property
    def output(self) -> str:
        return str(self.node.output[0])


def quantized_layers(model: onnx.ModelProto) -> list[QuantizedLayer]:
    """The layers whose weights are integers that no other layer reads, in the graph's order."""
    view = GraphView(model)
    found = []
    for node in model.graph.node:
        maker = view.producers.get(node.input[1]) if node.op_type in ("Conv", "Gemm", "MatMul") else None
        if maker is not None and maker.op_type == "Reshape":  # of weights in groups
            maker = view.producers.get(maker.input[0])
        if maker is None or maker.op_type != "DequantizeLinear" or not view.is_constant(maker.input[0]):
            continue
        if view.only_consumer(node.input[1]) is not None:
            found.append(QuantizedLayer(node, maker))
    return found


def reconstruct(
    original: onnx.ModelProto,
    quantized: onnx.ModelProto,
    batches: Iterable[Tensor],
    options: ReconstructionOptions,
    progress: Progress = SILENT,
) -> onnx.ModelProto:
    """A copy of ``quantized`` whose layers give, one after the other, more nearly what ``original`` gives.

    Each layer is mended on the inputs that the layers before it, mended already, really give. The bias correction
    is the empirical one (Nagel et al. 2019, appendix D): the difference of the channels' means, for every
    convolution and Gemm.

    Args:
        original: the float graph from which ``quantized`` was made; layers have the same output names.
        batches: network inputs; they and the tensors between two layers are held in memory.

    Raises:
        RcompressError: there are none.
    """
    images = list(batches)
    if not images:
        raise RcompressError("calibration", "saw no images", "give more with --calib-images")
    result = onnx.ModelProto()
    result.CopyFrom(quantized)
    layers = quantized_layers(result)
    floats = Walk(original, images, keep=[layer.output for layer in layers], device=options.device)
    walk = Walk(result, images, device=options.device)
    generator = torch.Generator().manual_seed(options.seed)
    mender = _Mender(GraphView(original), GraphView(result), walk, options, generator)
    progress.start("reconstructing layers", len(layers))
    for layer in layers:
        mender.mend(layer, floats.take(layer.output))
        progress.advance()
    return result


@dataclass(frozen=True)
class _Mender:
    original: GraphView
    quantized: GraphView
    walk: Walk
    options: ReconstructionOptions
    generator: torch.Generator

    def mend(self, layer: QuantizedLayer, targets: list[Tensor]) -> None:
        """Change ``layer`` in the graph and in the walk; ``targets`` are its float outputs, batch by batch."""
        if self.options.adaround and len(_kernel(self.walk, layer)) in (0, 2):
            self._round(layer, targets)
        if self.options.bias_correction and layer.node.op_type != "MatMul":
            self._correct(layer, targets)

    def _round(self, layer: QuantizedLayer, targets: list[Tensor]) -> None:
        node = self.walk.node(layer.output)
        source = self.original.producers[layer.output]
        weight = self._constant(self.original, source.input[1])
        inputs = self.walk.until(node.inputs[0])
        rows = layer_rows(node, weight, inputs, targets, ROWS, self.generator)
        scale = self._scale(layer, weight)
        follower = self.quantized.only_consumer(layer.output)
        rectified = follower is not None and follower.op_type == "Relu"
        problem = Rounding(
            weights=matrix_form(node, weight),
            scale=matrix_form(node, scale),
            levels=LEVELS[self.quantized.initializers[layer.dequantizer.input[0]].data_type],
            bias=self._constant(self.quantized, node.inputs[2]) if len(node.inputs) > 2 else None,
            rectified=rectified,
        )
        steps = graph_form(node, rounded(problem, rows, self.options.adaround, self.generator), weight)
        _store(self.quantized.initializers[layer.dequantizer.input[0]], steps)
        self.walk.until(node.inputs[1])
        self.walk.replace(node.inputs[1], steps * scale)

    def _correct(self, layer: QuantizedLayer, targets: list[Tensor]) -> None:
        shift = _channel_means(targets) - _channel_means(self.walk.until(layer.output))
        bias = _bias_of(self.quantized, layer.node, len(shift))
        values = numpy_helper.to_array(bias) + shift.cpu().numpy().reshape(tuple(bias.dims))
        bias.CopyFrom(numpy_helper.from_array(values.astype(np.float32), bias.name))
        self.walk.shift(layer.output, shift.view(-1, *[1] * (targets[0].dim() - 2)))

    def _scale(self, layer: QuantizedLayer, weight: Tensor) -> Tensor:
        """The scale of each weight, in the weights' shape."""
        steps = tensor_of(self.quantized.initializers[layer.dequantizer.input[0]])
        scale = tensor_of(self.quantized.initializers[layer.dequantizer.input[1]])
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in layer.dequantizer.attribute}
        spread = along(attributes, scale, steps).expand(steps.shape)
        return spread.reshape(weight.shape).to(weight.device)

    def _constant(self, view: GraphView, name: str) -> Tensor:
        return tensor_of(view.initializers[name]).to(self.options.device)


def _kernel(walk: Walk, layer: QuantizedLayer) -> tuple[int, ...]:
    """The window of a convolution; () for a matrix product."""
    return tuple(walk.until(layer.node.input[1])[0].shape[2:])


def _channel_means(outputs: list[Tensor]) -> Tensor:
    """float32 (channels,): the mean over images and positions of outputs (n, channels, ...)."""
    sums = sum(part.double().transpose(0, 1).flatten(1).sum(1) for part in outputs)
    assert isinstance(sums, Tensor), "there is at least one batch"
    return (sums / sum(part.numel() / part.shape[1] for part in outputs)).float()


def _bias_of(view: GraphView, node: NodeProto, channels: int) -> TensorProto:
    """The bias of a convolution or Gemm, which gets one of zeros where it has none of its own."""
    name = node.input[2] if len(node.input) > 2 else ""
    own = view.initializers.get(name)
    if own is not None and view.only_consumer(name) is not None and np.prod(own.dims) == channels:
        return own
    before = np.zeros(channels, np.float32) if own is None else numpy_helper.to_array(own)
    fresh = numpy_helper.from_array(
        np.broadcast_to(before, (channels,)).astype(np.float32), f"{node.output[0]}_bias"
    )
    view.model.graph.initializer.append(fresh)
    held: TensorProto = view.model.graph.initializer[-1]
    view.initializers[fresh.name] = held
    del node.input[2:]
    node.input.append(fresh.name)
    return held


def _store(tensor: TensorProto, steps: Tensor) -> None:
    kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    shaped = steps.cpu().numpy().reshape(tuple(tensor.dims)).astype(np.int8).astype(kind)
    tensor.CopyFrom(numpy_helper.from_array(shaped, tensor.name))
