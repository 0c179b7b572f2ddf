"""Figures as people read them."""

from __future__ import annotations

import pytest

from rcompress.report.text import in_words, signed, significant, with_spread


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.3519, "0.352"),
        (2.134, "2.13"),
        (12.7, "12.7"),
        (1239.6, "1,240"),
        (0.00012345, "0.000123"),
    ],
)
def test_three_significant_digits(value: float, shown: str) -> None:
    assert significant(value) == shown


def test_intervals_and_deviations_keep_the_figures_decimals() -> None:
    accuracy = {"top1_percent": 92.634, "top1_percent_low": 92.1, "top1_percent_high": 93.12}
    assert with_spread(accuracy, "top1_percent", decimals=2) == "92.63 (92.10-93.12)"
    assert (
        with_spread({"latency_p50_ms": 2.13, "latency_p50_ms_std": 0.0213}, "latency_p50_ms") == "2.13 ± 0.02"
    )
    assert with_spread({"latency_p50_ms": 2.13}, "latency_p50_ms") == "2.13"
    assert with_spread({}, "latency_p50_ms") == ""


@pytest.mark.parametrize(
    ("value", "shown"), [(-3.72, "-3.72"), (0.08, "+0.08"), (-0.001, "0.00"), (0.0, "0.00")]
)
def test_signs(value: float, shown: str) -> None:
    assert signed(value) == shown


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({"machine": "EPYC", "device": "cpu", "threads": 2, "transfers": "none"}, "EPYC, 2 threads"),
        (
            {"machine": "EPYC", "device": "NVIDIA H200", "transfers": "excluded"},
            "NVIDIA H200, transfers excluded",
        ),
        ({"device": "cpu", "threads": 1, "batch_size": None}, "cpu, 1 thread"),
        ({"dataset": "cifar10", "split": "test", "images": 10000}, "cifar10, test split, 10,000 images"),
        ({}, ""),
    ],
)
def test_conditions_are_told_in_words(conditions: dict[str, object], said: str) -> None:
    assert in_words(conditions) == said
