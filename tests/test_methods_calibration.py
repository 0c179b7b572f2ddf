"""Calibrators, each against a small computation of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rcompress.engines.torch_graph import TorchGraph
from rcompress.errors import RcompressError
from rcompress.methods.calibration import (
    HistogramObserver,
    collect_ranges,
    make_observer,
    percentile_threshold,
)
from tests import tiny

VALUES = np.concatenate([np.random.default_rng(3).standard_normal(20_000), [9.0]]).astype(np.float32)


def observed(method: str, levels: int = 127, parts: int = 7, values: np.ndarray = VALUES) -> float:
    observer = make_observer(method, levels, 99.9)
    for part in np.array_split(values, parts):
        observer.update(torch.from_numpy(part), float(abs(part).max()))
    return observer.threshold()


def test_minmax_keeps_the_largest() -> None:
    assert observed("minmax") == 9.0


def test_moving_average_follows_the_batches() -> None:
    largest = [float(np.abs(part).max()) for part in np.array_split(VALUES, 7)]
    expected = largest[0]
    for value in largest[1:]:
        expected = 0.9 * expected + 0.1 * value
    assert observed("moving-average") == pytest.approx(expected)


def test_percentile_is_numpys_within_a_bin() -> None:
    expected = np.percentile(np.abs(VALUES), 99.9)
    assert abs(observed("percentile") - expected) < 2 * 9.0 / 1024


def test_mse_is_the_best_of_a_fine_search() -> None:
    def error(threshold: float) -> float:
        step = threshold / 15
        return float(((np.clip(np.round(VALUES / step), -15, 15) * step - VALUES) ** 2).sum())

    best = min(error(threshold) for threshold in np.linspace(0.5, 9.0, 400))
    assert error(observed("mse", levels=15)) < 1.02 * best


def test_entropy_cuts_a_lone_outlier_and_keeps_a_uniform() -> None:
    assert observed("entropy") < 6.0
    uniform = np.linspace(0, 1, 50_000, dtype=np.float32)
    assert observed("entropy", values=uniform) == pytest.approx(1.0, abs=0.02)


def test_histograms_forget_nothing_when_they_widen() -> None:
    observer = HistogramObserver(percentile_threshold(50.0))
    for scale in (0.0, 0.01, 1.0, 100.0):
        observer.update(torch.full((100,), scale), scale)
    assert observer._counts.sum() == 400
    assert 0.01 <= observer.threshold() < 0.2


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse", "moving-average"])
def test_a_tensor_of_zeros_is_harmless(method: str) -> None:
    assert observed(method, values=np.zeros(100, np.float32)) == 0.0


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_named(method: str, value: float) -> None:
    images = torch.zeros(2, 3, tiny.SIDE, tiny.SIDE)
    images[1, 0, 0, 0] = value
    observers = {"features": make_observer(method, 127, 99.9)}
    with pytest.raises(RcompressError, match="features: is not finite"):
        collect_ranges(TorchGraph(tiny.tiny_graph()), observers, [images[:1], images], 3)
