"""What two networks' classifiers see, and its images in the plane: PCA and t-SNE before and after compression."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from rcompress.data import Split, balanced_indices, input_batches
from rcompress.engines.base import FloatArray
from rcompress.errors import RcompressError
from rcompress.search.diagnose import IMAGE_SEED
from rcompress.search.diagnosis_sides import Side, require_comparable
from rcompress.search.feature_points import Embedding, FeaturePair

BATCH = 64
LEAST_IMAGES = 10
PERPLEXITY, TSNE_DIMENSIONS = 30.0, 50
CLASSIFIERS = ("Gemm", "MatMul", "Conv")


def feature_pair(first: Side, second: Side, split: Split, images: int, seed: int = 0) -> FeaturePair:
    """Run both networks and embed the inputs of their classifiers.

    The second network's PCA is turned (orthogonal Procrustes) and its t-SNE started so that a class lies where it
    lay in the first: the axes of neither mean anything by themselves.

    Args:
        first, second: see `open_side`, both graphs or checkpoints.
        split: images on which choices may be made.
        images: at most that many, balanced over the classes.

    Raises:
        RcompressError: they cannot be compared, one is an engine, there are too few images or a single class.
    """
    spec = require_comparable(first, second)
    chosen = split.subset(balanced_indices(split.labels, min(images, len(split)), IMAGE_SEED))
    fixed = first.input_shape[0] or second.input_shape[0]
    batches = [
        (images.numpy(), labels.numpy())
        for images, labels in input_batches(chosen, spec.preprocessing, fixed or BATCH)
        if fixed is None or len(images) == fixed
    ]
    labels = np.concatenate([labels for _, labels in batches]) if batches else np.empty(0, np.int64)
    if len(labels) < LEAST_IMAGES or len(np.unique(labels)) in (1, len(labels)):
        raise RcompressError(
            first.path, f"has {len(labels)} images to draw, too few per class", "give more with --images"
        )
    before, after = (_features(side, [batch for batch, _ in batches]) for side in (first, second))
    return _embedded(before, after, labels, seed)


def _features(side: Side, batches: list[FloatArray]) -> FloatArray:
    """(N, D) float32: what goes into the layer that gives the logits."""
    if side.graph is None:
        raise RcompressError(
            side.path, "is an engine and shows no features", "give the .onnx it was built from"
        )
    name = _classifier_input(side.graph, side.output)
    if name is None:
        raise RcompressError(side.path, "has no classifier layer at its end", "give a classification network")
    shown = [side.probe.run(batch, [name])[name] for batch in batches]
    return np.concatenate([values.reshape(len(values), -1) for values in shown])


def _classifier_input(graph: onnx.ModelProto, output: str) -> str | None:
    """The data input of the last layer with weights on the way to the logits."""
    makers = {name: node for node in graph.graph.node for name in node.output}
    name = output
    while name in makers:
        node = makers[name]
        if node.op_type in CLASSIFIERS:
            return str(node.input[0])
        name = next((source for source in node.input if source in makers), "")
    return None


def _embedded(before: FloatArray, after: FloatArray, labels: NDArray[np.int64], seed: int) -> FeaturePair:
    axes, explained = _pca(before, 2)
    other, other_explained = _pca(after, 2)
    left, _, right = np.linalg.svd(other.T @ axes)
    other = other @ (left @ right)
    first = _tsne(before, axes, seed)
    second = _tsne(after, first, seed)
    return FeaturePair(
        Embedding(axes, explained, first, float(silhouette_score(before, labels))),
        Embedding(other, other_explained, second, float(silhouette_score(after, labels))),
        labels,
    )


def _pca(features: FloatArray, dimensions: int) -> tuple[NDArray[np.float64], float]:
    """Scores and the share of the variance that they hold, in percent."""
    fitted = PCA(min(dimensions, *features.shape), svd_solver="full")
    scores = fitted.fit_transform(features.astype(np.float64))
    return scores, 100.0 * float(fitted.explained_variance_ratio_.sum())


def _tsne(features: FloatArray, start: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Started from ``start``, scaled as t-SNE wants it (a deviation of 1e-4)."""
    reduced, _ = _pca(features, TSNE_DIMENSIONS)
    small = start / max(float(start[:, 0].std()), 1e-12) * 1e-4
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    fitted = TSNE(2, perplexity=perplexity, init=small.astype(np.float32), random_state=seed, n_jobs=1)
    placed: NDArray[np.float64] = fitted.fit_transform(reduced).astype(np.float64)
    return placed
