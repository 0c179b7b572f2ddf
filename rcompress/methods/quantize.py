"""Post-training quantization of ONNX classifiers: INT8 weights and activations, symmetric, explicit Q/DQ."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from rcompress.engines.graph_io import graph_input, shape_of
from rcompress.engines.torch_graph import TorchGraph
from rcompress.errors import RcompressError
from rcompress.methods.calibration import CalibrationMethod, Range, collect_ranges, make_observer
from rcompress.methods.equalization import equalized
from rcompress.methods.graph_prepare import prepare_graph
from rcompress.methods.graph_view import GraphView
from rcompress.methods.placement import LayerBits, Placement, Profile, layers_of, place
from rcompress.methods.qdq import LEVELS, insert_qdq
from rcompress.progress import SILENT, Progress


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantize.

    Attributes:
        profile: the target's habits, see `placement.place`.
        method: how activation thresholds are chosen.
        percentile: for the method of that name, in percent of all magnitudes.
        per_channel: one weight scale for each output channel; else one for each layer.
        device: where calibration runs.
        bits: of weights and activations, layer by layer.
        group: one weight scale for at most so many inputs of a channel; None: see ``per_channel``.
        equalize: cross-layer equalization first, see `equalization`.
    """

    profile: Profile = "cpu"
    method: CalibrationMethod = "minmax"
    percentile: float = 99.99
    per_channel: bool = True
    device: str = "cpu"
    bits: LayerBits = field(default_factory=LayerBits)
    group: int | None = None
    equalize: bool = False


@dataclass(frozen=True)
class QuantizationReport:
    """What was quantized.

    Attributes:
        convolutions, matrices: layers that got INT8 operands, of ``all_convolutions`` and ``all_matrices``.
        activations: quantized activation tensors.
        images: calibration images seen; 0 where ranges were given.
        fixed_batch: the batch size that is built into the graph, None where it is free.
    """

    convolutions: int
    all_convolutions: int
    matrices: int
    all_matrices: int
    activations: int
    images: int
    fixed_batch: int | None

    def sentence(self) -> str:
        """One line for people."""
        return (
            f"quantized operands for {self.convolutions} of {self.all_convolutions} convolutions "
            f"and {self.matrices} of {self.all_matrices} matrix products"
        )


@dataclass(frozen=True)
class QuantizationPlan:
    """A graph made ready, and what is to be quantized in it."""

    model: onnx.ModelProto
    placement: Placement
    options: QuantizeOptions = field(default_factory=QuantizeOptions)

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that is built into the graph, None where it is free."""
        return shape_of(graph_input(self.model))[0]

    def placed(self, options: QuantizeOptions) -> QuantizationPlan:
        """The same graph, already prepared, quantized as ``options`` say."""
        return replace(self, placement=place(self.model, options.profile, options.bits), options=options)


@dataclass(frozen=True)
class QuantizedGraph:
    """The outcome: a graph with Q/DQ, the ranges it was made with, and what was done."""

    model: onnx.ModelProto
    ranges: dict[str, Range]
    report: QuantizationReport


def plan_quantization(
    model: onnx.ModelProto, options: QuantizeOptions = QuantizeOptions(), subject: str = "the graph"
) -> QuantizationPlan:
    """Prepare ``model`` (see `prepare_graph`) and decide what to quantize.

    Raises:
        RcompressError: it cannot be prepared, has no layer with constant weights, none of a name that
            ``options`` mention, or no pair of layers to equalize.
    """
    prepared = prepare_graph(model, subject)
    _require_layers(prepared, options.bits, subject)
    if options.equalize:
        prepared, pairs = equalized(prepared)
        if not pairs:
            raise RcompressError(subject, "has no pair of layers to equalize", "leave --equalize out")
    plan = QuantizationPlan(prepared, place(prepared, options.profile, options.bits), options)
    if not plan.placement.weights:
        raise RcompressError(
            subject, "has no convolution or matrix product to quantize", "give another graph"
        )
    _require_finite(plan, subject)
    return plan


def _require_finite(plan: QuantizationPlan, subject: str) -> None:
    constants = GraphView(plan.model).initializers
    for weight in plan.placement.weights:
        for name in (weight.name, weight.bias):
            if name is not None and not np.isfinite(numpy_helper.to_array(constants[name])).all():
                raise RcompressError(
                    subject, f"{name} holds values that are not finite", "give a network whose training held"
                )


def _require_layers(model: onnx.ModelProto, bits: LayerBits, subject: str) -> None:
    names = [weight.layer for _, weight in layers_of(GraphView(model))]
    for name in (*bits.skip, *bits.wide):
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names[:3]
            raise RcompressError(
                subject, f"has no layer {name!r}", f"name one as in {', '.join(near)} (rcompress inspect)"
            )


def calibrate(
    plan: QuantizationPlan, batches: Iterable[Tensor], total: int, progress: Progress = SILENT
) -> tuple[dict[str, Range], int]:
    """Run images through the graph and find the range of every tensor to be quantized.

    Args:
        batches: network inputs (N, C, H, W) float32, normalised, or (N, H, W, C) uint8 where the graph does.
        total: images to expect.

    Returns:
        Ranges by tensor name, and the number of images seen.

    Raises:
        RcompressError: no images, or a tensor is not finite.
    """
    options = plan.options
    graph = TorchGraph(plan.model).to(options.device)
    observers = {
        name: make_observer(options.method, LEVELS[integer], options.percentile)
        for name, integer in plan.placement.activations.items()
    }
    moved = (images.to(options.device) for images in rebatched(batches, plan.fixed_batch))
    ranges, seen = collect_ranges(graph, observers, moved, total, progress)
    if seen == 0:
        raise RcompressError("calibration", "saw no images", "give more with --calib-images")
    return ranges, seen


def quantize_planned(plan: QuantizationPlan, ranges: dict[str, Range], images: int = 0) -> QuantizedGraph:
    """Write Q/DQ into the planned graph with ``ranges``, from `calibrate` or from a cache."""
    placement = plan.placement
    operators = [node.op_type for node in plan.model.graph.node]
    report = QuantizationReport(
        convolutions=placement.convolutions,
        all_convolutions=operators.count("Conv"),
        matrices=placement.matrices,
        all_matrices=operators.count("Gemm") + operators.count("MatMul"),
        activations=len(placement.activations),
        images=images,
        fixed_batch=plan.fixed_batch,
    )
    quantized = insert_qdq(plan.model, placement, ranges, plan.options.per_channel, plan.options.group)
    return QuantizedGraph(quantized, ranges, report)


def quantize_onnx(
    model: onnx.ModelProto,
    batches: Iterable[Tensor],
    total: int,
    options: QuantizeOptions = QuantizeOptions(),
    progress: Progress = SILENT,
    subject: str = "the graph",
) -> QuantizedGraph:
    """Plan, calibrate and quantize in one go; see those functions for arguments and errors."""
    plan = plan_quantization(model, options, subject)
    ranges, seen = calibrate(plan, batches, total, progress)
    return quantize_planned(plan, ranges, seen)


def rebatched(batches: Iterable[Tensor], size: int | None) -> Iterator[Tensor]:
    """``batches`` as they are, or as batches of exactly ``size`` images, an incomplete rest left out."""
    if size is None:
        yield from batches
        return
    waiting: list[Tensor] = []
    for images in batches:
        *full, rest = [*torch.split(torch.cat([*waiting, images]), size)]
        if len(rest) == size:
            full, rest = [*full, rest], rest[:0]
        yield from full
        waiting = [rest]
