"""Two networks' features as points in the plane, and the record that keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rcompress.artifacts.records import Record

if TYPE_CHECKING:
    from rcompress.search.diagnosis_sides import Side

FEATURES = "features"
DECIMALS = 3


@dataclass(frozen=True)
class Embedding:
    """One network's features in the plane.

    Attributes:
        pca: (N, 2) float64, the two directions of greatest variance.
        explained_percent: the share of the variance along them.
        tsne: (N, 2) float64, t-SNE (van der Maaten and Hinton, JMLR 2008).
        silhouette: of the classes in the features themselves, -1 to 1 (Rousseeuw, 1987): how apart they lie.
    """

    pca: NDArray[np.float64]
    explained_percent: float
    tsne: NDArray[np.float64]
    silhouette: float


@dataclass(frozen=True)
class FeaturePair:
    """Both networks' features of the same images; ``labels`` (N,) int64."""

    before: Embedding
    after: Embedding
    labels: NDArray[np.int64]


def feature_record(pair: FeaturePair, first: Side, second: Side, where: Mapping[str, Any]) -> Record:
    """The pair as a record of the second network; ``where`` names the data and the classes."""
    points = {
        side: {
            "pca": embedding.pca.round(DECIMALS).tolist(),
            "tsne": embedding.tsne.round(DECIMALS).tolist(),
            "explained_percent": embedding.explained_percent,
            "silhouette": embedding.silhouette,
        }
        for side, embedding in (("before", pair.before), ("after", pair.after))
    }
    return Record(
        kind=FEATURES,
        artifact=second.path.name,
        sha256=second.sha256,
        metrics={},
        context={
            **where,
            "against": first.path.name,
            "images": len(pair.labels),
            "labels": pair.labels.tolist(),
            **points,
        },
        lineage=second.spec.to_dict()["lineage"] if second.spec else [],
    )
