"""Low-rank algebra: held against NumPy's, and factors against the layers that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rcompress.measure.complexity import module_complexity
from rcompress.methods.low_rank import (
    factor_weights,
    matrices_of,
    multiplications,
    product,
    singular_values,
    truncated_svd,
)
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
