"""The integer grids of weights, against loops over channels and groups."""

from __future__ import annotations

import numpy as np
import pytest

from rcompress.methods.weight_grid import WeightGrid, fitting_group

VALUES = np.random.default_rng(0).standard_normal((6, 4, 3, 3)).astype(np.float32)
NONE = np.zeros(6, np.float32)


def restored(grid: WeightGrid, values: np.ndarray, floor: np.ndarray = NONE) -> np.ndarray:
    scale = grid.scales(values, floor)
    return grid.steps(values, scale) * grid.spread(scale, values.shape)


def test_eight_bits_reach_the_largest_of_each_channel() -> None:
    scale = WeightGrid(8, axis=0).scales(VALUES, NONE)
    np.testing.assert_allclose(scale, [np.abs(channel).max() / 127 for channel in VALUES], rtol=1e-6)


def test_groups_have_scales_of_their_own() -> None:
    grid = WeightGrid(8, axis=0, group=12)
    scale = grid.scales(VALUES, NONE)
    expected = [
        [np.abs(row[start : start + 12]).max() / 127 for start in (0, 12, 24)]
        for row in VALUES.reshape(6, 36)
    ]
    np.testing.assert_allclose(scale, expected, rtol=1e-6)
    found = restored(grid, VALUES).reshape(6, 36)
    for row, channel in enumerate(VALUES.reshape(6, 36)):
        steps = np.repeat(scale[row], 12)
        np.testing.assert_allclose(found[row], np.round(channel / steps) * steps, atol=1e-6)


def test_groups_along_the_rows_of_a_matrix() -> None:
    matrix = VALUES.reshape(6, 36).T.copy()  # (inputs, outputs)
    by_columns = restored(WeightGrid(4, axis=1, group=12), matrix)
    by_rows = restored(WeightGrid(4, axis=0, group=12), matrix.T.copy())
    np.testing.assert_array_equal(by_columns, by_rows.T)


def test_four_bits_clip_where_it_errs_least() -> None:
    def error(channel: np.ndarray, scale: float) -> float:
        return float(((np.clip(np.round(channel / scale), -7, 7) * scale - channel) ** 2).sum())

    values = np.concatenate([VALUES, np.full((6, 1, 3, 3), 4.0, np.float32)], axis=1)
    scale = WeightGrid(4, axis=0).scales(values, NONE)
    for channel, found in zip(values, scale, strict=True):
        largest = np.abs(channel).max() / 7
        best = min(error(channel, largest * share) for share in np.linspace(0.4, 1, 400))
        assert error(channel, found) < 1.05 * best
        assert error(channel, found) <= error(channel, largest)
    assert (scale < np.abs(values).max(axis=(1, 2, 3)) / 7.01).any()


@pytest.mark.parametrize(("bits", "highest"), [(4, 7), (8, 127)])
def test_steps_stay_on_the_symmetric_grid(bits: int, highest: int) -> None:
    grid = WeightGrid(bits, axis=0)
    steps = grid.steps(VALUES, grid.scales(VALUES, NONE))
    assert steps.dtype == np.int8 and steps.max() <= highest and steps.min() >= -highest


def test_dead_channels_and_floors() -> None:
    values = VALUES.copy()
    values[2] = 0
    floor = np.full(6, 0.5, np.float32)
    assert WeightGrid(8, 0).scales(values, NONE)[2] == 1.0
    assert (WeightGrid(8, 0).scales(values, floor) == 0.5).all()
    assert WeightGrid(8, 0, per_channel=False).scales(values, floor) == 0.5


@pytest.mark.parametrize(("group", "fits"), [(64, 36), (36, 36), (20, 18), (8, 6), (1, 1)])
def test_groups_divide_a_channel(group: int, fits: int) -> None:
    assert fitting_group(group, VALUES, 0) == fits


def test_a_group_too_small_to_save_anything_is_the_channel() -> None:
    assert fitting_group(32, np.zeros((4, 61), np.float32), 0) == 61  # a prime
    assert fitting_group(64, np.zeros((4, 68), np.float32), 0) == 34
