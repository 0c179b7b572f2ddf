"""The algebra of low-rank factorization: weights as matrices, their factors, and what the factors cost.

Singular value decomposition of convolutions by channels (Zhang et al. 2016, Accelerating Very Deep Convolutional
Networks, section 3.1) or by space (Jaderberg et al. 2014, scheme 2), Tucker-2 by HOSVD (Kim et al. 2016, section
3.1), SVD of linear layers. The factors are those of `rcompress.models.factorized`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rcompress.models.factorized import Scheme

Ranks = tuple[int, ...]
"""One, or for ``tucker`` those of inputs and outputs."""


def matrices_of(weight: Tensor, scheme: Scheme) -> list[Tensor]:
    """The matrices whose ranks are cut: one, or for ``tucker`` the unfoldings along inputs and outputs.

    Args:
        weight: (out, in, height, width), or for ``linear`` (out, in).
        scheme: see `factors`.
    """
    if scheme == "spatial":  # (in, kh) x (out, kw)
        return [weight.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)]
    if scheme == "tucker":
        return [weight.transpose(0, 1).flatten(1), weight.flatten(1)]
    return [weight.flatten(1)]


def multiplications(layer: nn.Module, scheme: Scheme, ranks: Ranks) -> float:
    """Multiplications for one pixel of the output; the layer itself takes one for each of its weights.

    What stands before a stride works on that many times the pixels (odd sides round that by a row or a column).
    """
    weight = layer.get_parameter("weight")
    outputs, inputs = weight.shape[:2]
    if not isinstance(layer, nn.Conv2d):
        return ranks[0] * (inputs + outputs)
    (height, width), (down, across) = layer.kernel_size, layer.stride
    if scheme == "channel":
        return ranks[0] * (inputs * height * width + outputs)
    if scheme == "spatial":
        return ranks[0] * (inputs * height * across + outputs * width)
    return ranks[0] * inputs * down * across + math.prod(ranks) * height * width + ranks[1] * outputs


def factor_weights(weight: Tensor, scheme: Scheme, ranks: Ranks) -> list[Tensor]:
    """The factors' weights, as `factors` lays them out; singular values are shared evenly between two."""
    parts = [
        truncated_svd(matrix, rank) for matrix, rank in zip(matrices_of(weight, scheme), ranks, strict=True)
    ]
    if scheme == "tucker":
        entering, leaving = (left for left, _, _ in parts)
        core = torch.einsum("oihw,ir,os->srhw", weight, entering, leaving)
        return [entering.T[:, :, None, None], core, leaving[:, :, None, None]]
    ((left, singular, right),) = parts
    root = singular.sqrt()
    left, right = left * root, right * root[:, None]
    if scheme == "linear":
        return [right, left]
    outputs, inputs, height, width = weight.shape
    if scheme == "channel":
        return [right.reshape(-1, inputs, height, width), left[:, :, None, None]]
    first = left.T.reshape(-1, inputs, height, 1)
    return [first, right.reshape(-1, outputs, width).transpose(0, 1)[:, :, None, :]]


def singular_values(matrix: Tensor) -> Tensor:
    """All of a float64 matrix, descending: the roots of its smaller Gram matrix' eigenvalues.

    Ten times as fast as a singular value decomposition of it, to half the digits of float64, which are more than the
    weights have.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares: Tensor = torch.linalg.eigvalsh(wide @ wide.T)
    return squares.clamp(min=0).sqrt().flip(0)


def truncated_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Left (m, rank), values (rank,) and right (rank, n) of a float64 matrix (m, n), computed as `singular_values`.

    Their product is the projection of ``matrix`` on what is kept, to all digits. A value of nothing has a vector of
    nothing on the longer side.
    """
    if matrix.shape[0] > matrix.shape[1]:
        right, values, left = truncated_svd(matrix.T, rank)
        return left.T, values, right.T
    squares, vectors = torch.linalg.eigh(matrix @ matrix.T)
    left, values = vectors.flip(1)[:, :rank], squares.flip(0)[:rank].clamp(min=0).sqrt()
    smallest = torch.finfo(matrix.dtype).tiny
    return left, values, left.T @ matrix / values.clamp(min=smallest)[:, None]


def product(parts: list[Tensor], scheme: Scheme) -> Tensor:
    """The weight that the factors stand for."""
    if scheme == "linear":
        return parts[1] @ parts[0]
    if scheme == "channel":
        return torch.einsum("or,rihw->oihw", parts[1][:, :, 0, 0], parts[0])
    if scheme == "spatial":
        return torch.einsum("rih,orw->oihw", parts[0][..., 0], parts[1][:, :, 0])
    return torch.einsum("os,srhw,ri->oihw", parts[2][:, :, 0, 0], parts[1], parts[0][:, :, 0, 0])
