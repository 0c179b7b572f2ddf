"""k-means clustering of weights: each layer keeps a few distinct values.

Han et al. 2016, Deep Compression, section 3. The values may then be fine-tuned while every weight keeps its cluster
(section 3.3). Packed, the file holds a table and an index per weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rcompress.artifacts.packing import MAX_CODES
from rcompress.errors import RcompressError
from rcompress.methods.layer_weights import weighted_layers
from rcompress.progress import SILENT, Progress, tracked
from rcompress.training.guidance import Constraint

MAX_ITERATIONS = 1000  # Lloyd ends by itself, after some hundred on large layers

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClusteredLayer:
    """One layer's weights before and after.

    Attributes:
        weights: how many there are.
        values: distinct ones that they now have.
        relative_error: norm of the change over the norm of the weights.
        reason: why the layer was left alone; None where it was not.
    """

    name: str
    weights: int
    values: int
    relative_error: float
    reason: str | None = None


def cluster(module: nn.Module, clusters: int, progress: Progress = SILENT) -> list[ClusteredLayer]:
    """Give the weights of every convolution and linear layer at most ``clusters`` distinct values each, in place.

    Weights that are exactly zero stay so: a pruned network's zeros are one of the clusters. Layers too small
    for a table of that length are left alone, as are those that have so few values already.

    Raises:
        RcompressError: ``clusters`` is not within 2 and 256, or there is no layer to be clustered.
    """
    if not 2 <= clusters <= MAX_CODES:
        raise RcompressError("--clusters", f"{clusters} is not within 2 and {MAX_CODES}", "256 loses least")
    layers = dict(weighted_layers(module))
    rows = [
        _clustered(name, layer, clusters)
        for name, layer in tracked(layers.items(), len(layers), "k-means", progress)
    ]
    if all(row.reason for row in rows):
        raise RcompressError("cluster", f"no layer gains from {clusters} clusters", "lower --clusters")
    return rows


def kmeans(values: Floats, clusters: int, gap: float = 0.0) -> Floats:
    """Centroids (<= ``clusters``,), ascending, of one-dimensional ``values`` by Lloyd's algorithm.

    The start is linear between the extremes, which keeps the few large weights that matter most (section 3.2; also
    measured: tests/benchmarks/DECISIONS.md). In one dimension a cluster is a stretch of the sorted values, so that
    with running sums an iteration costs ``clusters`` binary searches. Clusters that end empty are dropped.

    Args:
        gap: no value is closer to zero than this, so that no cluster starts there either.
    """
    ordered = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    lowest, highest = (float(edge - np.sign(edge) * gap) for edge in ordered[[0, -1]])
    closed = np.linspace(lowest, highest, clusters)
    centroids = closed + np.sign(closed) * gap
    for _ in range(MAX_ITERATIONS):
        bounds = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        edges = np.concatenate([[0], bounds, [len(ordered)]])
        counts = np.diff(edges)
        moved = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = np.sort(moved)
    used: Floats = centroids[counts > 0]
    return used


def nearest(values: Floats, centroids: Floats) -> NDArray[np.intp]:
    """The index of the closest of the ascending ``centroids`` for each value."""
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values)


class CentroidTuning(Constraint):
    """While this is attached, the distinct values of each clustered layer are what is trained.

    A centroid's gradient is the sum over its weights (Han et al. 2016, equation 3). It is trained in units of one
    over the square root of their number, so that a step moves the weights as plain descent projected onto the
    clusters would: learning rates mean the same as without clusters. A cluster of zeros stays at zero.

    Args:
        names: the clustered layers; each holds few distinct values already.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def attach(self, module: nn.Module) -> None:
        """See `Constraint`."""
        for name in self.names:
            layer = module.get_submodule(name)
            parametrize.register_parametrization(layer, "weight", _Lookup(layer.weight))  # type: ignore[arg-type]

    def identity(self) -> dict[str, Any]:
        """See `Constraint`."""
        return {"constraint": "centroids", "layers": list(self.names)}


class _Lookup(nn.Module):
    """Weights from centroids: ``(scaled centroids * unit)[index]``."""

    index: Tensor
    unit: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        values, index, counts = torch.unique(weight.detach(), return_inverse=True, return_counts=True)
        unit = counts.to(weight.dtype).rsqrt()
        self.register_buffer("index", index)
        self.register_buffer("unit", torch.where(values == 0, 0.0, unit))

    def forward(self, scaled: Tensor) -> Tensor:
        """``scaled`` (values,) as a weight."""
        return (scaled * self.unit).index_select(0, self.index.flatten()).view(self.index.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """(values,): the scaled centroids of a weight whose clusters are those of ``index``."""
        values = torch.zeros_like(self.unit).index_copy(0, self.index.flatten(), weight.flatten())
        return torch.where(self.unit == 0, 0.0, values / self.unit.clamp(min=1e-12))


def _clustered(name: str, layer: nn.Module, clusters: int) -> ClusteredLayer:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    values = weight.detach().cpu().double().numpy().ravel()
    distinct = len(np.unique(values))
    if distinct <= clusters:
        return ClusteredLayer(name, values.size, distinct, 0.0, f"has {distinct} values as it is")
    if 4 * clusters > 3 * values.size:  # a table of floats and a byte a weight are no less than the floats
        return ClusteredLayer(name, values.size, distinct, 0.0, f"is too small for {clusters} clusters")
    centroids = _centroids(values, clusters)
    chosen = centroids[nearest(values, centroids)]
    error = float(np.linalg.norm(chosen - values) / np.linalg.norm(values))
    with torch.no_grad():
        weight.copy_(torch.from_numpy(chosen).view(weight.shape))
    return ClusteredLayer(name, values.size, len(np.unique(chosen.astype(np.float32))), error)


def _centroids(values: Floats, clusters: int) -> Floats:
    """As `kmeans`; where values are exactly zero, zero is one of the centroids."""
    nonzero = values[values != 0]
    if len(nonzero) == len(values):
        return kmeans(values, clusters)
    return np.sort(np.append(kmeans(nonzero, clusters - 1, gap=float(np.abs(nonzero).min())), 0.0))
