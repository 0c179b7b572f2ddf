"""Ranks: by energy, and EVBMF against its free energy minimised point by point."""

from __future__ import annotations

import numpy as np
import pytest

from rcompress.methods.rank import energy_rank, evbmf_rank


def test_energy():
    singular = np.sqrt(np.array([50.0, 30.0, 15.0, 5.0]))
    assert [energy_rank(singular, share) for share in (0.1, 0.5, 0.51, 0.8, 0.9, 0.96)] == [1, 1, 2, 2, 3, 4]
    assert energy_rank(np.ones(7), 1 - 1e-15) == 7


def best_rank(singular, shape):
    """The rank of the least free energy (Nakajima et al. 2013, section 2), over ranks and variances of the noise.

    Both are tried one by one. A component that is kept has the means and variances of A and B and of their priors
    that alternating updates find, not the paper's closed form.
    """
    rows, columns = shape
    least = np.sum(singular**2) / (rows * columns)
    variance = np.geomspace(least / 300, least, 150)[:, None]
    a = b = np.sqrt(singular) * np.ones_like(variance)
    prior_a = prior_b = singular / np.sqrt(rows * columns)
    spread_b = variance / singular
    for _ in range(3000):
        spread_a = variance / (b**2 + rows * spread_b + variance / prior_a)
        a = singular * b * spread_a / variance
        prior_a = a**2 / columns + spread_a
        spread_b = variance / (a**2 + columns * spread_a + variance / prior_b)
        b = singular * a * spread_b / variance
        prior_b = b**2 / rows + spread_b
    fit = -2 * a * b * singular + (a**2 + columns * spread_a) * (b**2 + rows * spread_b)
    kept = columns * np.log(prior_a / spread_a) + rows * np.log(prior_b / spread_b) + fit / variance
    energies = rows * columns * np.log(2 * np.pi * variance) + np.sum(singular**2) / variance
    energies = energies + np.cumsum(np.pad(kept, ((0, 0), (1, 0))), axis=1)
    return np.unravel_index(energies.argmin(), energies.shape)[1]


def disturbed(strengths, shape):
    """Singular values of a matrix with these, and noise of variance one."""
    generator = np.random.default_rng(3)
    left, right = (np.linalg.qr(generator.standard_normal((side, len(strengths))))[0] for side in shape)
    matrix = (left * np.array(strengths)) @ right.T + generator.standard_normal(shape)
    return np.linalg.svd(matrix, compute_uv=False)


@pytest.mark.parametrize(
    ("strengths", "rank"), [((45, 35), 2), ((60, 25, 22.5), 3), ((45, 4), 1), ((30, 29, 28, 27), 4)]
)
def test_evbmf_minimises_the_free_energy(strengths, rank):
    singular = disturbed(strengths, (10, 25))
    assert evbmf_rank(singular, (10, 25)) == best_rank(singular, (10, 25)) == rank


def test_evbmf_draws_the_line_where_the_free_energy_does():
    weak = np.linspace(5, 13, 9)
    found = [disturbed((40, strength), (10, 25)) for strength in weak]
    ranks = [evbmf_rank(singular, (10, 25)) for singular in found]
    assert ranks == [best_rank(singular, (10, 25)) for singular in found]
    assert set(ranks) == {1, 2}


@pytest.mark.parametrize("shape", [(60, 200), (200, 60), (64, 576)])
@pytest.mark.parametrize("rank", [1, 4, 11])
@pytest.mark.parametrize("noise", [0.01, 3.0])
def test_evbmf_finds_the_rank_under_noise(shape, rank, noise):
    generator = np.random.default_rng(rank)
    left, right = generator.standard_normal((shape[0], rank)), generator.standard_normal((rank, shape[1]))
    matrix = 3 * left @ right + noise * generator.standard_normal(shape)
    assert evbmf_rank(np.linalg.svd(matrix, compute_uv=False), shape) == rank


def test_evbmf_of_noise_alone_keeps_one():
    singular = np.linalg.svd(np.random.default_rng(0).standard_normal((60, 200)), compute_uv=False)
    assert evbmf_rank(singular, (60, 200)) == 1
