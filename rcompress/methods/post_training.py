"""Post-training quantization from start to end: images or a cache in, a quantized graph and its cache out."""

from __future__ import annotations

import onnx

from rcompress.methods.calibration_cache import CalibrationCache, graph_hash, ranges_for
from rcompress.methods.calibration_data import CalibrationImages
from rcompress.methods.quantize import (
    QuantizedGraph,
    QuantizeOptions,
    calibrate,
    plan_quantization,
    quantize_planned,
)
from rcompress.progress import SILENT, Progress


def quantize_after_training(
    model: onnx.ModelProto,
    given: CalibrationCache | CalibrationImages,
    options: QuantizeOptions = QuantizeOptions(),
    subject: str = "the graph",
    progress: Progress = SILENT,
) -> tuple[QuantizedGraph, CalibrationCache]:
    """Quantize ``model`` with ranges from images or from a cache.

    Returns:
        The graph, and the cache that makes it again without images.

    Raises:
        RcompressError: the graph cannot be quantized, or the cache lacks a tensor of it.
    """
    plan = plan_quantization(model, options, subject)
    digest = graph_hash(plan.model)
    if isinstance(given, CalibrationCache):
        if given.graph_sha256 != digest:
            progress.note(
                "The calibration cache was made with another graph whose tensors have the same names."
            )
        ranges = ranges_for(given, plan.placement.activations, subject)
        return quantize_planned(plan, ranges), given
    ranges, seen = calibrate(plan, given.batches(), len(given), progress)
    cache = CalibrationCache(given.dataset, seen, options.method, options.profile, digest, ranges)
    return quantize_planned(plan, ranges, seen), cache
