"""Factorization: held against NumPy's algebra, and EVBMF against its free energy minimised point by point."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rcompress.errors import RcompressError
from rcompress.measure.complexity import module_complexity
from rcompress.methods.factorize import FactorizeOptions, factorize
from rcompress.methods.low_rank import (
    factor_weights,
    matrices_of,
    multiplications,
    product,
    singular_values,
    truncated_svd,
)
from rcompress.methods.rank import energy_rank, evbmf_rank
from rcompress.models.factorized import factors

CONVOLUTIONS = {
    "plain": {"kernel_size": 3, "padding": 1, "bias": False},
    "strided": {"kernel_size": 3, "padding": 1, "stride": 2},
    "uneven": {"kernel_size": (3, 5), "padding": (1, 2), "stride": (2, 1)},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "same": {"kernel_size": (3, 5), "padding": "same"},
    "valid": {"kernel_size": 5, "padding": "valid"},
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "row": {"kernel_size": (1, 7), "padding": (0, 3)},
    "point": {"kernel_size": 1, "stride": 2},
}


def layer_of(kind, inputs=6, outputs=8):
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, **CONVOLUTIONS[kind])


def product_at(layer, scheme, ranks):
    """The factors, filled, without asking whether they are cheaper."""
    weight = layer.weight.detach().double()
    made = factors(layer, scheme, ranks)
    for factor, part in zip(made, factor_weights(weight, scheme, ranks), strict=True):
        factor.weight.data = part.float().contiguous()
    if layer.bias is not None:
        made[-1].bias.data = layer.bias.data
    return made


def low_rank_layer(scheme, rank, **options):
    """A layer that the scheme can say at ``rank`` without any loss."""
    torch.manual_seed(1)
    layer = nn.Conv2d(12, 16, 3, padding=1, **options) if scheme != "linear" else nn.Linear(24, 20)
    weight = layer.weight.detach().double()
    ranks = (rank, rank) if scheme == "tucker" else (rank,)
    layer.weight.data = product(factor_weights(weight, scheme, ranks), scheme).float()
    return layer


class Net(nn.Module):
    """One layer among others, called for images of (12, 9, 9)."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.flat = layer, isinstance(layer, nn.Linear)

    def forward(self, images):
        return self.layer(images.flatten(1) if self.flat else images)


@pytest.mark.parametrize("scheme", ["channel", "spatial", "tucker"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
@torch.no_grad()
def test_at_full_rank_outputs_stay(kind, scheme):
    layer = layer_of(kind)
    ranks = tuple(min(matrix.shape) for matrix in matrices_of(layer.weight, scheme))
    images = torch.randn(2, 6, 11, 10)
    torch.testing.assert_close(product_at(layer, scheme, ranks)(images), layer(images), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_at_full_rank_a_linear_layer_stays():
    torch.manual_seed(0)
    layer, inputs = nn.Linear(9, 7), torch.randn(3, 9)
    torch.testing.assert_close(product_at(layer, "linear", (7,))(inputs), layer(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheme", ["channel", "spatial", "tucker", "linear"])
@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_what_is_of_low_rank_is_factorized_without_loss(scheme, stride):
    if scheme == "linear":
        module, size = Net(low_rank_layer(scheme, 3)), (24, 1, 1)
        options = FactorizeOptions(rank=3)
    else:
        module, size = Net(low_rank_layer(scheme, 3, stride=stride)), (12, 9, 9)
        options = FactorizeOptions(scheme, rank=3)
    images = torch.randn(2, *size)
    before = module(images)
    report = factorize(module, size, options)
    torch.testing.assert_close(module(images), before, rtol=1e-4, atol=1e-5)
    assert report.layers[0].relative_error < 1e-6
    assert len(module.layer) == (3 if scheme == "tucker" else 2)
    counted = module_complexity(module, size)
    assert (report.parameters[1], report.macs[1]) == (counted.parameters, counted.macs)
    assert report.layers[0].macs == report.macs


def test_the_error_is_that_of_the_singular_values_cut_off():
    """Eckart and Young 1936: the squared error of the best matrix of a rank is the sum of the squared tail."""
    torch.manual_seed(0)
    layer = nn.Conv2d(12, 16, 3, padding=1)
    weight = layer.weight.detach().double().numpy()
    unfolded = {
        "channel": weight.reshape(16, -1),
        "spatial": np.stack(
            [weight[o, i, h] for i in range(12) for h in range(3) for o in range(16)]  # rows of 3
        ).reshape(36, 48),
    }
    for scheme, matrix in unfolded.items():
        module = Net(nn.Conv2d(12, 16, 3, padding=1))
        module.layer.weight.data = layer.weight.data.clone()
        row = factorize(module, (12, 9, 9), FactorizeOptions(scheme, rank=5)).layers[0]
        squares = np.linalg.svd(matrix, compute_uv=False) ** 2
        assert row.relative_error == pytest.approx(np.sqrt(squares[5:].sum() / squares.sum()), rel=1e-6)


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (20, 20)])
def test_singular_values_are_those_of_lapack(shape):
    generator = np.random.default_rng(1)
    rank = min(shape) - 4  # four values are zero
    matrix = generator.standard_normal((shape[0], rank)) @ generator.standard_normal((rank, shape[1]))
    expected = np.linalg.svd(matrix, compute_uv=False)
    found = singular_values(torch.from_numpy(matrix)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected[0])
    left, values, right = (each.numpy() for each in truncated_svd(torch.from_numpy(matrix), min(shape)))
    np.testing.assert_allclose((left * values) @ right, matrix, atol=1e-6)
    np.testing.assert_allclose(left[:, :rank].T @ left[:, :rank], np.eye(rank), atol=1e-6)


def test_tucker_is_the_higher_order_svd():
    """De Lathauwer et al. 2000, by mode products and eigenvectors of the unfoldings' Gram matrices."""
    weight = np.random.default_rng(0).standard_normal((7, 5, 3, 3))
    bases = []
    for axis, rank in ((1, 3), (0, 4)):
        unfolded = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        vectors = np.linalg.eigh(unfolded @ unfolded.T)[1][:, ::-1][:, :rank]
        bases.append(vectors @ vectors.T)
    expected = np.tensordot(bases[1], np.tensordot(bases[0], weight, (1, 1)), (1, 1))
    parts = factor_weights(torch.from_numpy(weight), "tucker", (3, 4))
    assert [tuple(part.shape) for part in parts] == [(3, 5, 1, 1), (4, 3, 3, 3), (7, 4, 1, 1)]
    np.testing.assert_allclose(product(parts, "tucker").numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("kind", ["plain", "strided", "uneven", "dilated", "same", "row", "point"])
@pytest.mark.parametrize("scheme", ["channel", "spatial", "tucker"])
def test_costs_are_those_that_are_counted(kind, scheme):
    layer, size = layer_of(kind), (6, 12, 16)
    ranks = (2, 3) if scheme == "tucker" else (2,)
    counted = module_complexity(factors(layer, scheme, ranks), size).macs
    whole = module_complexity(nn.Sequential(layer), size).macs
    assert counted == pytest.approx(multiplications(layer, scheme, ranks) / layer.weight.numel() * whole)


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


class Mixed(nn.Module):
    """What can be factorized beside what cannot."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(3, 32, 3, padding=1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.dead = nn.Conv2d(32, 32, 3, padding=1)
        nn.init.zeros_(self.dead.weight)
        self.attention = nn.MultiheadAttention(32, 2, batch_first=True)
        self.spare = nn.Linear(32, 32)
        self.fc = nn.Linear(32, 2)

    def forward(self, images):
        features = self.dead(self.depthwise(self.wide(images))) + self.depthwise(self.wide(images))
        tokens = features.flatten(2).transpose(1, 2)
        return self.fc(self.attention(tokens, tokens, tokens)[0].mean(1))


def test_layers_left_alone_say_why():
    report = factorize(Mixed(), (3, 8, 8), FactorizeOptions("channel", rank=4))
    reasons = {row.name: row.reason for row in report.layers}
    assert reasons.pop("wide") is None
    assert reasons == {
        "depthwise": "is a grouped convolution",
        "dead": "is zero",
        "attention.out_proj": "is a NonDynamicallyQuantizableLinear",
        "spare": "is not called for an image: other code may read its weights",
        "fc": "at rank 2 it would take 106% of its MACs",
    }


@torch.no_grad()
def test_ratio_removes_so_much_of_each_layer():
    module = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 32, 3, stride=2, padding=1))
    for scheme in ("channel", "spatial", "tucker"):
        made = factorize(
            nn.Sequential(*(nn.Conv2d(*pair, 3, padding=1) for pair in ((16, 32), (32, 32)))),
            (16, 8, 8),
            FactorizeOptions(scheme, ratio=0.6, round_to=1),
        )
        for row in made.layers:
            assert 0.34 < row.macs[1] / row.macs[0] <= 0.4, row
    report = factorize(module, (16, 8, 8), FactorizeOptions(ratio=0.6, ignore=("1",)))
    assert [row.reason for row in report.layers] == [None, "is to be left alone (--ignore)"]
    assert isinstance(module[1], nn.Conv2d)


def test_ranks_are_the_nearest_multiples_but_those_that_are_given():
    def ranks(**given):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 3))
        return [row.ranks[0] for row in factorize(module, (3, 16, 16), FactorizeOptions(**given)).layers]

    assert ranks(scheme="spatial", ratio=0.35, round_to=1) == [4, 20, 31]
    assert ranks(scheme="spatial", ratio=0.35) == [4, 24, 32]
    assert ranks(scheme="spatial", ratio=0.35, round_to=24) == [4, 20, 24]
    assert ranks(scheme="spatial", rank=5) == [5, 5, 5]
    exact = ranks(scheme="spatial", energy=0.5, round_to=1)
    expected = [rank if rank < 8 else -(-rank // 8) * 8 for rank in exact]
    assert ranks(scheme="spatial", energy=0.5) == expected != exact


@pytest.mark.parametrize(("given", "figure"), [({"ratio": 0.5}, "error"), ({"energy": 0.6}, "macs")])
def test_auto_takes_for_each_layer_the_better_scheme(given, figure):
    def rows(scheme):
        torch.manual_seed(0)
        first, rows_and_columns, last = (
            nn.Conv2d(*sides, 3, padding=1) for sides in ((3, 16), (16, 32), (32, 32))
        )
        separable = torch.einsum("irh,orw->oihw", torch.randn(16, 6, 3), torch.randn(32, 6, 3))
        rows_and_columns.weight.data = separable + 0.1 * torch.randn(32, 16, 3, 3)
        few_filters = torch.einsum("or,rihw->oihw", torch.randn(32, 6), torch.randn(6, 32, 3, 3))
        last.weight.data = few_filters + 0.1 * torch.randn(32, 32, 3, 3)
        module = nn.Sequential(first, rows_and_columns, last, nn.Conv2d(32, 32, (1, 3), padding=(0, 1)))
        return factorize(module, (3, 16, 16), FactorizeOptions(scheme, **given)).layers

    def of(row):
        return row.relative_error if figure == "error" else row.macs[1]

    chosen = rows("auto")
    for best, *others in zip(chosen, rows("spatial"), rows("channel"), strict=True):
        assert of(best) == min(of(row) for row in others)
    assert {row.scheme for row in chosen[:3]} == {"spatial", "channel"}
    assert chosen[3].scheme == "channel"


def test_factors_keep_the_type_and_the_mode():
    module = nn.Sequential(nn.Conv2d(16, 32, 3)).double().eval()
    module.register_forward_pre_hook(lambda _, inputs: inputs[0].double())
    factorize(module, (16, 8, 8), FactorizeOptions(rank=2))
    assert not any(part.training for part in module.modules())
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float64}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "needs one way to choose ranks"),
        ({"rank": 2, "evbmf": True}, "needs one way to choose ranks"),
        ({"rank": 0}, "0 is below 1"),
        ({"ratio": 0.5, "round_to": 0}, "0 is below 1"),
        ({"energy": 1.0}, "not between 0 and 1"),
        ({"ratio": 0.0}, "not between 0 and 1"),
        ({"rank": 2, "scheme": "cp"}, "unknown scheme 'cp'"),
    ],
)
def test_options_that_make_no_sense(given, said):
    with pytest.raises(RcompressError, match=said):
        FactorizeOptions(**given)


def test_nothing_to_gain_and_nothing_to_ignore():
    module = nn.Sequential(nn.Conv2d(4, 4, 3))
    with pytest.raises(RcompressError, match="no layer would become cheaper"):
        factorize(module, (4, 8, 8), FactorizeOptions("channel", rank=4))
    with pytest.raises(RcompressError, match="has no layer 'nowhere'"):
        factorize(module, (4, 8, 8), FactorizeOptions(rank=1, ignore=("nowhere",)))


class Nosy(nn.Module):
    """Calls a layer and reads its weight too."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(16, 32, 3)

    def forward(self, images):
        return self.layer(images.to(self.layer.weight.dtype))


def test_code_that_reads_weights_is_told_apart():
    with pytest.raises(RcompressError, match="reads a layer that was replaced"):
        factorize(Nosy(), (16, 8, 8), FactorizeOptions(rank=2))
