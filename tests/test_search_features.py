"""Features in the plane: of real networks, turned so that the two can be compared."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import reporting
import torch
from PIL import Image

from rcompress.artifacts.checkpoint import write_checkpoint
from rcompress.artifacts.records import Record, read_records
from rcompress.artifacts.spec import Step, parent_fields
from rcompress.data import open_dataset
from rcompress.engines import build_engine
from rcompress.errors import RcompressError
from rcompress.methods.source_graph import open_graph
from rcompress.models import load_model
from rcompress.report.build import build_report
from rcompress.report.embeddings import feature_plots, features_png
from rcompress.search.diagnosis_sides import open_side
from rcompress.search.feature_points import FeaturePair
from rcompress.search.features import feature_pair


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


def test_the_command_keeps_them_for_a_report(rcompress, trained: Path, damaged: Path, tmp_path: Path) -> None:
    kept = tmp_path / "f.result.json"
    assert rcompress("diagnose", trained, damaged, "--features", kept, "--images", 60).code == 0
    (record,) = read_records(kept)
    assert (record.kind, record.artifact, record.context["against"]) == (
        "features",
        "damaged.pth",
        trained.name,
    )
    report = build_report([reporting.evaluated(trained.name, 95.0), record])
    plots, missing = feature_plots(report)
    assert not missing
    assert [plot.name for plot in plots] == [
        f"features-{plane}-{side}" for plane in ("pca", "tsne") for side in ("before", "after")
    ]
    assert [plot.title for plot in plots[:2]] == [
        f"Features of {trained.name}: PCA",
        "Features of damaged.pth: PCA",
    ]
    assert list(plots[0].legend) == [str(digit) for digit in range(10)]
    assert plots[0].subtitle[0] == f"digits, validation split, {record.context['images']} images"
    drawn = [reporting.drawn(plot.chart) for plot in plots[:2]]
    assert [(point["x"], point["y"]) for point in drawn[1]] == [
        tuple(point) for point in record.context["after"]["pca"]
    ]
    assert [point["class"] for point in drawn[0]] == [point["class"] for point in drawn[1]]
    assert Image.open(io.BytesIO(plots[2].png)).width > 1200


def spoiled(**context: object) -> Record:
    points = {"pca": [[0.0, 1.0], [1.0, 0.0]], "tsne": [[0.0, 1.0], [1.0, 0.0]]}
    side = {**points, "explained_percent": 50.0, "silhouette": 0.5}
    whole = {"before": side, "after": side, "labels": [0, 1], "classes": [], "against": "a.pth"}
    return Record("features", "b.pth", reporting.sha("b.pth"), {}, {**whole, **context})


@pytest.mark.parametrize(
    ("context", "fault"),
    [
        ({"labels": [0, 1, 2]}, "points are not two numbers for each label"),
        ({"labels": [0, -1]}, "labels without a class"),
        ({"labels": [0, 5], "classes": ["cat", "dog"]}, "labels without a class"),
        ({"labels": [0.5, 1]}, "no list of classes"),
        ({"labels": []}, "no list of classes"),
        ({"before": {}}, "pca"),
        ({"after": None}, "NoneType"),
    ],
)
def test_a_record_that_tells_no_features_is_named(context: dict[str, object], fault: str) -> None:
    record = spoiled(**context)
    report = build_report([reporting.evaluated("a.pth", 95.0), record])
    plots, (said,) = feature_plots(report)
    assert not plots
    assert "No features of b.pth" in said
    assert fault in said


def test_a_report_without_faults_has_all_panels() -> None:
    plots, missing = feature_plots(build_report([reporting.evaluated("a.pth", 95.0), spoiled(), spoiled()]))
    assert (len(plots), missing) == (8, [])
    assert len({plot.name for plot in plots}) == 8


def test_features_go_into_a_picture_or_a_record(rcompress, trained: Path) -> None:
    run = rcompress("diagnose", trained, trained, "--features", "features.txt")
    assert (run.code, run.out) == (2, "")
    assert "neither a .png nor a .result.json" in run.err
