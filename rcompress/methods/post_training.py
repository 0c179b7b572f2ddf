"""Post-training quantization from start to end: images or a cache in, a quantized graph and its cache out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import onnx

from rcompress.artifacts.spec import ModelSpec, Step, parent_fields
from rcompress.measure.static import graph_metrics
from rcompress.methods.calibration_cache import CalibrationCache, graph_hash, ranges_for
from rcompress.methods.calibration_data import CalibrationImages
from rcompress.methods.quantize import (
    QuantizationReport,
    QuantizedGraph,
    QuantizeOptions,
    calibrate,
    plan_quantization,
    quantize_planned,
)
from rcompress.methods.source_graph import SourceGraph
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


def quantization_record(
    options: QuantizeOptions, report: QuantizationReport, cache: CalibrationCache
) -> dict[str, Any]:
    """What a lineage says of a quantization."""
    return {
        "quantization": {**asdict(options), "method": cache.method},
        "calibration": {"dataset": cache.dataset, "images": cache.images, "method": cache.method},
        "int8_layers": {"convolutions": report.convolutions, "matrices": report.matrices},
    }


def quantized_spec(
    spec: ModelSpec,
    source: SourceGraph,
    options: QuantizeOptions,
    report: QuantizationReport,
    cache: CalibrationCache,
) -> ModelSpec:
    """The description of a quantized graph; the figures are those of the network before."""
    step = Step(
        "quantize",
        quantization_record(options, report, cache),
        **parent_fields(source.path, source.sha256),
        metrics=dict(graph_metrics(source.model)),
    )
    return spec.with_step(step)
