"""Which layers to spare: the most sensitive ones keep a higher precision until accuracy holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from rcompress.data import Split, input_batches
from rcompress.engines.torch_graph import TorchGraph
from rcompress.errors import RcompressError
from rcompress.measure.accuracy import evaluate
from rcompress.methods.calibration import Range
from rcompress.methods.calibration_data import CalibrationImages
from rcompress.methods.graph_view import GraphView
from rcompress.methods.placement import layers_of
from rcompress.methods.quantize import (
    QuantizationPlan,
    QuantizeOptions,
    calibrate,
    plan_quantization,
    quantize_planned,
    rebatched,
)
from rcompress.progress import SILENT, Progress

SENSITIVITY_IMAGES = 128
BATCH_SIZE = 250


@dataclass(frozen=True)
class Spared:
    """The outcome of `within_drop`.

    Attributes:
        options: those given, with the layers to spare named.
        layers: these layers, most sensitive first.
        float_percent, percent: top-1 on the choice split, of the float graph and with ``options``.
    """

    options: QuantizeOptions
    layers: tuple[str, ...]
    float_percent: float
    percent: float


def within_drop(
    model: onnx.ModelProto,
    images: CalibrationImages,
    choice: Split,
    max_drop: float,
    options: QuantizeOptions,
    subject: str = "the graph",
    progress: Progress = SILENT,
) -> Spared:
    """Spare as few layers as keep top-1 on ``choice`` within ``max_drop`` points of the float graph's.

    Layers are ranked without labels, by the divergence of the logits when that layer alone is quantized, and
    spared in that order, as many as a bisection finds to be needed. With 4-bit weights a spared layer gets 8
    bits; with 8-bit weights it stays FP32.

    Raises:
        RcompressError: the graph cannot be quantized, or accuracy does not hold with every layer spared.
    """
    plan = plan_quantization(model, options, subject)
    ranges = calibrate(plan, images.batches(), len(images), progress)[0] if plan.placement.activations else {}
    ranked = [name for name, _ in sensitivities(plan, ranges, images, progress)]
    accuracy = _scorer(plan, choice, images, progress)
    float_percent = accuracy(plan.model)

    def percent(count: int) -> float:
        return accuracy(_quantized(spared(options, ranked[:count]), plan, ranges))

    count, reached = _fewest(percent, len(ranked), float_percent - max_drop)
    if reached < float_percent - max_drop:
        raise RcompressError(
            subject,
            f"loses {float_percent - reached:.2f} points even with every layer spared",
            f"allow more than --max-drop {max_drop:g}",
        )
    if count == len(ranked) and options.bits.weights == 8:
        raise RcompressError(
            subject,
            "loses too much unless every layer stays in FP32",
            f"allow more than --max-drop {max_drop:g}",
        )
    kept = tuple(ranked[:count])
    return Spared(spared(options, kept), kept, float_percent, reached)


def sensitivities(
    plan: QuantizationPlan, ranges: dict[str, Range], images: CalibrationImages, progress: Progress = SILENT
) -> list[tuple[str, float]]:
    """Each layer's name and the Kullback-Leibler divergence in nats, mean over images, from the float graph's
    predictions to those with that layer alone quantized; the largest first."""
    names = [weight.layer for _, weight in layers_of(GraphView(plan.model))]
    candidates = [name for name in names if name not in plan.options.bits.skip]
    fixed = plan.fixed_batch
    batches = list(rebatched(_first(images.batches(), max(SENSITIVITY_IMAGES, fixed or 0)), fixed))
    expected = _log_probabilities(plan.model, batches, plan.options.device)
    found = []
    progress.start("measuring each layer's sensitivity", len(candidates))
    for name in candidates:
        others = tuple(other for other in names if other != name)
        alone = replace(plan.options, bits=replace(plan.options.bits, skip=others))
        got = _log_probabilities(_quantized(alone, plan, ranges), batches, plan.options.device)
        found.append((name, float(F.kl_div(got, expected, reduction="batchmean", log_target=True))))
        progress.advance()
    return sorted(found, key=lambda entry: -entry[1])


def spared(options: QuantizeOptions, layers: Iterable[str]) -> QuantizeOptions:
    """``options`` with ``layers`` in a higher precision: 8 bits where weights have 4, else FP32."""
    bits = options.bits
    if bits.weights == 4:
        return replace(options, bits=replace(bits, wide=(*bits.wide, *layers)))
    return replace(options, bits=replace(bits, skip=(*bits.skip, *layers)))


def _fewest(percent: Callable[[int], float], most: int, wanted: float) -> tuple[int, float]:
    """The least count whose percentage reaches ``wanted``, by bisection, and that percentage."""
    reached = {0: percent(0)}
    if reached[0] >= wanted:
        return 0, reached[0]
    low, high = 0, most
    reached[high] = percent(high)
    while high - low > 1:
        middle = (low + high) // 2
        reached[middle] = percent(middle)
        low, high = (low, middle) if reached[middle] >= wanted else (middle, high)
    return high, reached[high]


def _quantized(options: QuantizeOptions, plan: QuantizationPlan, ranges: dict[str, Range]) -> onnx.ModelProto:
    """The planned graph, prepared and equalized already, quantized in another way."""
    return quantize_planned(plan.placed(options), ranges).model


def _first(batches: Iterable[Tensor], count: int) -> Iterable[Tensor]:
    for images in batches:
        if count <= 0:
            return
        yield images[:count]
        count -= len(images)


def _log_probabilities(model: onnx.ModelProto, batches: list[Tensor], device: str) -> Tensor:
    graph = TorchGraph(model).to(device)
    with torch.inference_mode():
        return torch.cat([F.log_softmax(graph(images.to(device)), dim=1) for images in batches])


def _scorer(
    plan: QuantizationPlan, choice: Split, images: CalibrationImages, progress: Progress
) -> Callable[[onnx.ModelProto], float]:
    """Top-1 in percent on ``choice``, run in PyTorch: unoptimised ONNX Runtime picks the same classes."""
    device, size = plan.options.device, plan.fixed_batch or BATCH_SIZE
    counted = choice.subset(torch.arange(len(choice) - len(choice) % size)) if plan.fixed_batch else choice

    def percent(model: onnx.ModelProto) -> float:
        graph = TorchGraph(model).to(device)
        batches = input_batches(counted, images.spec.preprocessing, size)
        return evaluate(lambda x: graph(x.to(device)), batches, len(counted), progress).top1_percent

    return percent
