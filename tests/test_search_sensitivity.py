"""Curves say what a real cut would do, the file keeps them, and a file of another network is refused."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from rcompress.artifacts.spec import ModelSpec
from rcompress.data import open_dataset
from rcompress.errors import RcompressError
from rcompress.methods.group_tracing import find_groups
from rcompress.methods.importance import score_channels
from rcompress.models import build_model
from rcompress.search.adaptation import levels, read_adaptation
from rcompress.search.material import Material
from rcompress.search.sensitivity import Curve, Point, measure_curves
from rcompress.search.sensitivity_file import Sensitivity, read_sensitivity, write_sensitivity
from rcompress.search.yardstick import Yardstick

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def material():
    """An untrained ResNet-20, BatchNorm as different from the start as a trained one's, so that channels differ."""
    torch.manual_seed(0)
    data = open_dataset("digits")
    module = build_model("resnet20", 10).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.5)
    preprocessing = data.preprocessing()
    graph = find_groups(module, preprocessing.input_size)
    spec = ModelSpec(10, preprocessing, "resnet20")
    return Material(graph, spec, score_channels(graph, "l2"), 1_100_000)


@pytest.fixture(scope="module")
def yardstick(material):
    images = open_dataset("digits").split("validation").subset(torch.arange(40))
    return Yardstick(material.module, images, material.spec.preprocessing, CPU)


def test_the_yardstick_measures_the_divergence_of_the_definition(material, yardstick):
    other = build_model("resnet20", 10).eval()
    images, labels = next(open_dataset("digits").split("validation").batches(40))
    inputs = (images.float() / 255 - torch.tensor(material.spec.preprocessing.mean).view(1, -1, 1, 1)) / (
        torch.tensor(material.spec.preprocessing.std).view(1, -1, 1, 1)
    )
    with torch.no_grad():
        p, q = material.module(inputs).double().softmax(1), other(inputs).double().softmax(1)
        expected = float((p * (p / q).log()).sum(1).mean())
    found = yardstick.measure(other)
    assert found.divergence == pytest.approx(expected, rel=1e-3)
    assert found.top1_percent == pytest.approx(100 * float((q.argmax(1) == labels).float().mean()))
    assert yardstick.parent.divergence == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["conv1", "layer2.1.conv1", "layer3.0.conv2"])
def test_silent_channels_do_what_a_cut_does(material, yardstick, name):
    before = {key: value.clone() for key, value in material.module.state_dict().items()}
    curves = measure_curves(material.graph, {name: material.scores[name]}, yardstick, (0.25, 0.5))
    assert list(curves) == [name]
    for point in curves[name].points:
        cut = yardstick.measure(material.candidate({name: point.kept}))
        assert point.divergence == pytest.approx(cut.divergence, rel=1e-3, abs=1e-6)
        assert point.top1_percent == cut.top1_percent
    assert [point.kept for point in curves[name].points] == [
        curves[name].width * 3 // 4,
        curves[name].width // 2,
    ]
    after = material.module.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items()), "the weights are put back"


def test_harms_lie_on_lines_that_never_fall():
    curve = Curve(16, ("conv",), (Point(12, 0.4, 80.0), Point(8, 0.3, 82.0), Point(4, 1.2, 10.0)))
    assert curve.harms([2, 4, 6, 8, 10, 14, 16]) == pytest.approx(
        {4: 1.2, 6: 0.8, 8: 0.4, 10: 0.4, 14: 0.2, 16: 0.0}
    )
    assert curve.harms([4, 12, 16], divergence=0.3) == pytest.approx({4: 0.9, 12: 0.1, 16: 0.0})


def test_levels_are_multiples_and_few(material):
    groups = {group.name: group for group in material.groups}
    assert levels(groups["conv1"], 16) == [16]
    assert levels(groups["layer3.0.conv2"], 24) == [24, 48, 64]
    assert len(levels(groups["layer3.0.conv2"], 1)) <= 33


def record(material, sha256="0" * 64):
    curves = {
        name: Curve(width, (name,), (Point(width // 2, 0.5, 90.0), Point(width // 4, 1.0, 60.0)))
        for name, width in material.whole.items()
    }
    return Sensitivity("r20.pth", sha256, "l2", "digits", "validation", 40, 98.0, curves)


def test_what_is_written_is_read_again(material, tmp_path):
    found = record(material)
    path = write_sensitivity(tmp_path / "r20.sensitivity.json", found)
    assert read_sensitivity(path) == found
    adapted = read_adaptation(path, found.sha256, material.groups, 8, "l2")
    assert adapted.measure is None
    assert adapted.harms["conv1"] == {8: 0.5, 16: 0.0}


def test_curves_of_another_network_are_refused(material, tmp_path):
    path = write_sensitivity(tmp_path / "r20.sensitivity.json", record(material))
    with pytest.raises(RcompressError, match="is of another network"):
        read_adaptation(path, "1" * 64, material.groups, 8, "l2")


def test_curves_of_another_importance_are_refused(material, tmp_path):
    path = write_sensitivity(tmp_path / "r20.sensitivity.json", record(material))
    with pytest.raises(RcompressError, match="removed channels by l2, not taylor"):
        read_adaptation(path, "0" * 64, material.groups, 8, "taylor")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda entry: entry.update(format="other"), "its format is not"),
        (lambda entry: entry.pop("curves"), "no sensitivity record"),
        (lambda entry: entry["curves"]["conv1"]["points"].reverse(), "do not fall"),
        (lambda entry: entry["curves"]["conv1"]["points"][0].update(divergence=float("nan")), "no number"),
        (lambda entry: entry["curves"]["conv1"]["points"][0].update(kept=0), "do not fall"),
        (lambda entry: entry["curves"]["conv1"]["points"][0].update(kept=float("inf")), "infinity"),
    ],
    ids=["format", "no-curves", "order", "nan", "no-channels", "endless"],
)
def test_damaged_files_are_refused(material, tmp_path, change, fault):
    entry = json.loads(json.dumps(record(material).to_dict()))
    change(entry)
    path = tmp_path / "x.sensitivity.json"
    path.write_text(json.dumps(entry))
    with pytest.raises(RcompressError, match=fault):
        read_sensitivity(path)
