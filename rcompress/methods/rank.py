"""How many singular values of a layer's matrix are kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GRID = 4096  # points at which the noise's variance is tried


def energy_rank(singular: Floats, energy: float) -> int:
    """The least rank whose squared ``singular`` values (descending) sum up to the share ``energy``; at least one."""
    sums = np.cumsum(singular**2)
    return int(np.searchsorted(sums, (energy - 1e-12) * sums[-1])) + 1


def evbmf_rank(singular: Floats, shape: tuple[int, int]) -> int:
    """The rank that empirical variational Bayesian matrix factorization finds above the noise; at least one.

    Nakajima, Sugiyama, Babacan and Tomioka 2013, Global analytic solution of fully-observed variational Bayesian
    matrix factorization: theorem 2 (threshold), theorem 3 and corollary 1 (variance of the noise, here found on a
    logarithmic grid between its bounds).

    Args:
        singular: all singular values, descending.
        shape: of the matrix.
    """
    rows, columns = sorted(shape)
    aspect = rows / columns
    squares = singular[:rows] ** 2
    threshold = _threshold(aspect)
    variances = _variances(squares, rows, columns, threshold)
    scaled = squares[None, :] / (columns * variances[:, None])
    free_energy = np.sum(_cost(scaled, aspect, threshold), axis=1)
    variance = variances[int(np.argmin(free_energy))]
    return max(1, int(np.sum(squares > columns * variance * threshold)))


def _threshold(aspect: float) -> float:
    """Squared singular values in units of columns x variance, above which a component is signal."""
    edge = 2.5129 * np.sqrt(aspect)
    return float((1 + edge) * (1 + aspect / edge))


def _variances(squares: Floats, rows: int, columns: int, threshold: float) -> Floats:
    """Candidates for the noise's variance, between the bounds of corollary 1."""
    most = min(int(np.ceil(rows / (1 + rows / columns))) - 1, rows - 1)
    upper = float(squares.mean()) / columns
    tail = float(squares[most:].mean()) / columns
    lower = max(float(squares[most]) / (columns * threshold), tail)
    return np.geomspace(max(lower, 1e-12 * upper), upper, GRID)


def _cost(scaled: Floats, aspect: float, threshold: float) -> Floats:
    """Each component's share of the free energy."""
    safe = np.maximum(scaled, 1e-300)
    cost = safe - np.log(safe)
    signal = scaled > threshold
    moved = scaled[signal] - (1 + aspect)
    tau = 0.5 * (moved + np.sqrt(moved**2 - 4 * aspect))
    cost[signal] += np.log(tau + 1) + aspect * np.log(tau / aspect + 1) - tau
    return cost
