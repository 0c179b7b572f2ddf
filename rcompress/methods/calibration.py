"""Activation ranges: each tensor's observer sees every value once and keeps a fixed amount of memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rcompress.engines.torch_graph import TorchGraph
from rcompress.errors import RcompressError
from rcompress.progress import SILENT, Progress

CalibrationMethod = Literal["minmax", "percentile", "entropy", "mse", "moving-average"]
Histogram = NDArray[np.float64]

BINS = 2048
CANDIDATE_STRIDE = 16  # thresholds tried by entropy and mse lie this many bins apart
MOMENTUM = 0.9


@dataclass(frozen=True)
class Range:
    """What was seen of a tensor, and the largest magnitude that quantization will keep.

    Attributes:
        minimum, maximum: of all values seen.
        threshold: magnitudes above it saturate.
    """

    minimum: float
    maximum: float
    threshold: float


class Observer(Protocol):
    """Watches one tensor."""

    def update(self, values: Tensor, largest: float) -> None:
        """See one batch, whose largest magnitude is known."""

    def threshold(self) -> float:
        """The magnitude to keep, from all that was seen."""


class MinMax:
    """Keeps every value: the largest magnitude seen."""

    def __init__(self) -> None:
        self._largest = 0.0

    def update(self, values: Tensor, largest: float) -> None:  # noqa: ARG002 (the protocol's)
        self._largest = max(self._largest, largest)

    def threshold(self) -> float:
        return self._largest


class MovingAverage:
    """The exponential moving average of the batches' largest magnitudes (Jacob et al. 2018, section 3.1)."""

    def __init__(self, momentum: float = MOMENTUM) -> None:
        self._momentum = momentum
        self._average: float | None = None

    def update(self, values: Tensor, largest: float) -> None:  # noqa: ARG002 (the protocol's)
        old = largest if self._average is None else self._average
        self._average = self._momentum * old + (1 - self._momentum) * largest

    def threshold(self) -> float:
        return self._average or 0.0


class HistogramObserver:
    """Counts magnitudes in `BINS` bins from zero; a larger value doubles the bins' width by merging pairs.

    ``choose`` maps (counts, bin width) to a threshold.
    """

    def __init__(self, choose: Callable[[Histogram, float], float]) -> None:
        self._choose = choose
        self._counts: Histogram = np.zeros(BINS)
        self._width = 0.0

    def update(self, values: Tensor, largest: float) -> None:
        magnitudes = values.detach().abs().flatten().float()
        self._widen(largest)
        width = self._width or 1.0
        counts = torch.histc(magnitudes, bins=BINS, min=0.0, max=width * BINS)
        self._counts += counts.double().cpu().numpy()

    def threshold(self) -> float:
        filled = np.flatnonzero(self._counts)
        if self._width == 0.0 or len(filled) == 0:
            return 0.0
        return self._choose(self._counts[: filled[-1] + 1], self._width)

    def _widen(self, largest: float) -> None:
        if self._width == 0.0:
            self._width = largest / BINS  # all that came before was zero and lies in the first bin
            return
        while largest > self._width * BINS:
            merged = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.concatenate([merged, np.zeros(BINS // 2)])
            self._width *= 2


def percentile_threshold(percent: float) -> Callable[[Histogram, float], float]:
    """The magnitude below which ``percent`` of the values lie, to the precision of a bin."""

    def choose(counts: Histogram, width: float) -> float:
        share = np.cumsum(counts) / counts.sum()
        return float((np.searchsorted(share, percent / 100.0) + 1) * width)

    return choose


def mse_threshold(levels: int) -> Callable[[Histogram, float], float]:
    """The threshold whose rounding and saturation err least, squared (Banner et al. 2019, section 3)."""

    def choose(counts: Histogram, width: float) -> float:
        centres = (np.arange(len(counts)) + 0.5) * width
        thresholds = _candidates(len(counts), levels) * width
        steps = thresholds[:, None] / levels
        rounded = np.clip(np.round(centres / steps), 0, levels) * steps
        errors = ((rounded - centres) ** 2 * counts).sum(axis=1)
        return float(thresholds[errors.argmin()])

    return choose


def entropy_threshold(levels: int) -> Callable[[Histogram, float], float]:
    """The threshold that loses least information, as Kullback-Leibler divergence (Migacz, GTC 2017, S7310).

    Zeros are represented exactly at any scale, so the first bin counts no more than its neighbour.
    """

    def choose(counts: Histogram, width: float) -> float:
        counts = counts.copy()
        counts[0] = min(counts[0], counts[1]) if len(counts) > 1 else counts[0]
        candidates = _candidates(len(counts), levels)
        divergences = [_divergence(counts, int(kept), levels) for kept in candidates]
        return float(candidates[int(np.argmin(divergences))] * width)

    return choose


def _candidates(filled: int, levels: int) -> NDArray[np.int64]:
    """Numbers of bins to keep: no fewer than there are levels, and all of them among others."""
    start = min(levels + 1, filled)
    return np.unique(np.append(np.arange(start, filled, CANDIDATE_STRIDE), filled))


def _divergence(counts: Histogram, kept: int, levels: int) -> float:
    """KL divergence from the first ``kept`` bins (the rest added to the last one) to their quantization."""
    reference = counts[:kept].copy()
    reference[-1] += counts[kept:].sum()
    group = np.arange(kept) * (levels + 1) // kept
    filled = reference > 0
    mass = np.bincount(group, weights=counts[:kept], minlength=levels + 1)
    members = np.bincount(group, weights=filled, minlength=levels + 1)
    quantized = np.where(filled, (mass / np.maximum(members, 1))[group], 0.0)
    if quantized.sum() == 0 or reference.sum() == 0:
        return float("inf")
    p = reference[filled] / reference.sum()
    q = np.maximum(quantized[filled] / quantized.sum(), 1e-12)
    return float((p * np.log(p / q)).sum())


def make_observer(method: CalibrationMethod, levels: int, percentile: float) -> Observer:
    """An observer for a tensor whose magnitudes become ``levels`` steps (127 signed, 255 unsigned)."""
    makers: dict[CalibrationMethod, Callable[[], Observer]] = {
        "minmax": MinMax,
        "moving-average": MovingAverage,
        "percentile": lambda: HistogramObserver(percentile_threshold(percentile)),
        "entropy": lambda: HistogramObserver(entropy_threshold(levels)),
        "mse": lambda: HistogramObserver(mse_threshold(levels)),
    }
    return makers[method]()


def collect_ranges(
    graph: TorchGraph,
    observers: Mapping[str, Observer],
    batches: Iterable[Tensor],
    total: int,
    progress: Progress = SILENT,
) -> tuple[dict[str, Range], int]:
    """Run ``batches`` through ``graph`` and watch the tensors named in ``observers``.

    Args:
        batches: network inputs (N, ...) as the graph takes them; no batch is kept.
        total: how many images to expect, for the progress bar.

    Returns:
        The range of each watched tensor, and the number of images seen.

    Raises:
        RcompressError: a tensor is not finite.
    """
    extremes = dict.fromkeys(observers, (math.inf, -math.inf))

    def observe(name: str, values: Tensor) -> None:
        if name in observers:
            low, high = map(float, torch.aminmax(values))
            if not math.isfinite(high - low):
                raise RcompressError(
                    name, "is not finite on the calibration images", "check the model's weights"
                )
            observers[name].update(values, max(-low, high))
            before = extremes[name]
            extremes[name] = (min(before[0], low), max(before[1], high))

    seen = 0
    progress.start("calibrating", total)
    with torch.inference_mode():
        for images in batches:
            graph(images, observe)
            seen += len(images)
            progress.advance(len(images))
    ranges = {
        name: Range(*extremes[name], observer.threshold()) for name, observer in observers.items() if seen
    }
    return ranges, seen
