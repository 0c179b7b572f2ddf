"""Learning curves as PNG."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rcompress.training.curves import COLOURS, PANEL_WIDTH, SCALE, curves_png


def _epoch(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "epoch": number,
        "train_loss": 2.0 / number,
        "train_top1_percent": 100.0 - 60.0 / number,
        "validation_loss": 2.2 / number,
        "validation_top1_percent": 95.0 - 60.0 / number,
        "epoch_seconds": 1.0,
        "learning_rate": 0.1,
        **changes,
    }


def _image(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def _pixels(image: Image.Image, colour: str) -> int:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.asarray(image).astype(int) == wanted).all(axis=2).sum())


def test_both_series_are_drawn_in_their_colours() -> None:
    image = _image(curves_png([_epoch(n) for n in range(1, 11)]))
    assert image.width > 2 * SCALE * PANEL_WIDTH
    assert all(_pixels(image, colour) > 1000 for colour in COLOURS.values())


def test_the_figures_decide_the_picture() -> None:
    history = [_epoch(n) for n in range(1, 6)]
    assert curves_png(history) == curves_png(history)
    assert curves_png(history) != curves_png([*history[:-1], _epoch(5, train_loss=1.9)])


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([_epoch(1)], id="one epoch"),
        pytest.param([_epoch(1), _epoch(2, train_loss=math.nan)], id="diverged"),
        pytest.param([_epoch(n) for n in range(1, 101)], id="100 epochs"),
    ],
)
def test_odd_histories_are_drawn(history: list[dict[str, Any]]) -> None:
    assert _pixels(_image(curves_png(history)), COLOURS["validation"]) > 0


def test_a_history_without_accuracy_gives_one_panel() -> None:
    history = [{"epoch": n, "train_loss": 1.0 / n} for n in (1, 2, 3)]
    assert _image(curves_png(history)).width < 2 * SCALE * PANEL_WIDTH


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="no finite loss"):
        curves_png([{"epoch": 1, "train_loss": math.nan}])
