"""Features in the plane: of real networks, turned so that the two can be compared."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rcompress.artifacts.checkpoint import write_checkpoint
from rcompress.artifacts.spec import Step, parent_fields
from rcompress.data import open_dataset
from rcompress.engines import build_engine
from rcompress.errors import RcompressError
from rcompress.methods.source_graph import open_graph
from rcompress.models import load_model
from rcompress.report.embeddings import features_png
from rcompress.search.diagnosis_sides import open_side
from rcompress.search.features import FeaturePair, feature_pair


@pytest.fixture(scope="module")
def damaged(trained: Path, tmp_path_factory) -> Path:
    """The trained network with noise on every weight: its classes lie closer together."""
    loaded = load_model(trained)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in loaded.module.parameters():
            parameter += 0.7 * parameter.std(correction=0) * torch.randn_like(parameter)
    spec = loaded.spec.with_step(Step("damage", **parent_fields(trained, loaded.sha256)))
    return write_checkpoint(
        tmp_path_factory.mktemp("damaged") / "damaged.pth", spec, loaded.module.state_dict()
    )


@pytest.fixture(scope="module")
def pair(trained: Path, damaged: Path) -> FeaturePair:
    torch.set_num_threads(1)
    split = open_dataset("digits").split("validation")
    return feature_pair(open_side(trained), open_side(damaged), split, 120)


def test_damage_brings_the_classes_closer(pair: FeaturePair) -> None:
    assert pair.before.pca.shape == pair.after.tsne.shape == (len(pair.labels), 2)
    assert pair.before.silhouette > pair.after.silhouette + 0.05
    assert 0 < pair.before.explained_percent <= 100


def test_both_are_turned_alike(trained: Path, pair: FeaturePair) -> None:
    """A network beside itself lies on itself, and a damaged one's classes still lie in the same direction."""
    split = open_dataset("digits").split("validation")
    same = feature_pair(open_side(trained), open_side(trained), split, 60)
    np.testing.assert_allclose(same.before.pca, same.after.pca, atol=1e-6)
    centres = [
        np.stack([plane[pair.labels == label].mean(axis=0) for label in np.unique(pair.labels)]).ravel()
        for plane in (pair.before.pca, pair.after.pca)
    ]
    assert np.corrcoef(centres)[0, 1] > 0.5


def test_the_picture_shows_every_class(pair: FeaturePair) -> None:
    names = [f"class {number}" for number in range(10)]
    picture = np.asarray(
        Image.open(io.BytesIO(features_png(pair, names, ("a", "b"), "title"))).convert("RGB")
    )
    assert picture.shape[1] > 1200
    colours = {tuple(pixel) for pixel in picture.reshape(-1, 3)[::7]}
    assert len(colours) > 30
    many = features_png(pair, [], ("a" * 200, "b"), "title")
    assert Image.open(io.BytesIO(many)).width < 2500


def test_an_engine_and_too_few_images_are_refused(trained: Path, tmp_path: Path) -> None:
    split = open_dataset("digits").split("validation")
    graph = open_graph(trained)
    assert graph.spec is not None
    spec = graph.spec.with_step(Step("export", **parent_fields(trained, graph.sha256)))
    build_engine(graph.model, spec, tmp_path / "e.xml", "openvino")
    sides = open_side(trained), open_side(tmp_path / "e.xml")
    with pytest.raises(RcompressError, match="shows no features"):
        feature_pair(*sides, split, 60)
    with pytest.raises(RcompressError, match="too few per class"):
        feature_pair(sides[0], sides[0], split, 3)


def test_the_command_draws_them(rcompress, trained: Path, tmp_path: Path) -> None:
    run = rcompress("diagnose", trained, trained, "--features", tmp_path / "f.png", "--images", 60, "--json")
    assert run.code == 0, run.err
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.width > 1200
