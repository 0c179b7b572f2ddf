"""Post-training quantization from start to end: images or a cache in, a quantized graph and its cache out."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import onnx

from rcompress.errors import RcompressError
from rcompress.methods.calibration import Range
from rcompress.methods.calibration_cache import CalibrationCache, graph_hash, ranges_for
from rcompress.methods.calibration_data import CalibrationImages
from rcompress.methods.quantize import (
    QuantizationPlan,
    QuantizationReport,
    QuantizedGraph,
    QuantizeOptions,
    calibrate,
    plan_quantization,
    quantize_planned,
    rebatched,
)
from rcompress.methods.reconstruction import ReconstructionOptions, reconstruct
from rcompress.progress import SILENT, Progress

OF_LEVELS = ("entropy", "mse")  # methods whose thresholds depend on the profile's number of levels


def quantize_after_training(
    model: onnx.ModelProto,
    given: CalibrationCache | CalibrationImages | None,
    options: QuantizeOptions = QuantizeOptions(),
    subject: str = "the graph",
    progress: Progress = SILENT,
    mending: ReconstructionOptions = ReconstructionOptions(),
) -> tuple[QuantizedGraph, CalibrationCache | None]:
    """Quantize ``model`` with ranges from images or from a cache, and mend it on the images.

    Args:
        given: None will do where activations stay FP32 and nothing is to be mended.

    Returns:
        The graph, and the cache that makes it again (unmended) without images; None where activations stay FP32.

    Raises:
        RcompressError: the graph cannot be quantized, images are wanted and none given, or the cache lacks a
            tensor of it.
    """
    plan = plan_quantization(model, options, subject)
    ranges, seen, cache = _ranges(plan, given, subject, progress)
    quantized = quantize_planned(plan, ranges, seen)
    if not mending.mends:
        return quantized, cache
    if not isinstance(given, CalibrationImages):
        raise RcompressError(
            subject,
            "--adaround and --bias-correction need images, not ranges",
            "name a dataset with --calib",
        )
    batches = rebatched(given.batches(), quantized.report.fixed_batch)
    mended = reconstruct(plan.model, quantized.model, batches, mending, progress)
    return replace(quantized, model=mended), cache


def _ranges(
    plan: QuantizationPlan,
    given: CalibrationCache | CalibrationImages | None,
    subject: str,
    progress: Progress,
) -> tuple[dict[str, Range], int, CalibrationCache | None]:
    if not plan.placement.activations:
        return {}, 0, None
    if given is None:
        raise RcompressError(subject, "INT8 activations need calibration", "name a dataset with --calib")
    digest, options = graph_hash(plan.model), plan.options
    if isinstance(given, CalibrationCache):
        if given.graph_sha256 != digest:
            progress.note(
                "The calibration cache was made with another graph whose tensors have the same names."
            )
        if given.method != options.method:
            progress.note(f"The calibration cache's thresholds were chosen by {given.method}: they stay.")
        elif given.method == "percentile" and given.percentile not in (None, options.percentile):
            progress.note(
                f"The calibration cache's thresholds keep {given.percentile:g} % of the values: they stay."
            )
        if given.profile != options.profile and given.method in OF_LEVELS:
            progress.note(
                f"The calibration cache's thresholds are for the profile {given.profile}: they stay."
            )
        return ranges_for(given, plan.placement.activations, subject), 0, given
    ranges, seen = calibrate(plan, given.batches(), len(given), progress)
    percentile = options.percentile if options.method == "percentile" else None
    cache = CalibrationCache(given.dataset, seen, options.method, options.profile, digest, ranges, percentile)
    return ranges, seen, cache


def quantization_record(
    options: QuantizeOptions,
    report: QuantizationReport,
    cache: CalibrationCache | None,
    mending: ReconstructionOptions = ReconstructionOptions(),
) -> dict[str, Any]:
    """What a lineage says of a quantization."""
    said: dict[str, Any] = {"quantization": {**asdict(options), **asdict(mending)}}
    if cache is not None:
        said["quantization"]["method"] = cache.method
        if cache.percentile is not None:
            said["quantization"]["percentile"] = cache.percentile
        said["calibration"] = {"dataset": cache.dataset, "images": cache.images, "method": cache.method}
    said["int8_layers"] = {"convolutions": report.convolutions, "matrices": report.matrices}
    return said
