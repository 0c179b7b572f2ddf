"""Tensors inside a running network, and their distances."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rcompress.engines import build_engine, load_engine
from rcompress.engines.base import RunOptions
from rcompress.search.inner_tensors import Distance, GraphProbe, OpenVinoProbe, OutputProbe
from tests.graphs import images, residual


def distance(reference, values) -> Distance:
    found = Distance()
    for part in zip(np.array_split(reference, 3), np.array_split(values, 3), strict=True):
        found.add(*part)
    return found


def test_distances_are_those_of_the_whole():
    random = np.random.default_rng(0)
    reference = random.standard_normal((30, 5)).astype(np.float32)
    values = reference + 0.1 * random.standard_normal((30, 5)).astype(np.float32)
    found = distance(reference, values)
    noise = values.astype(np.float64) - reference
    assert found.snr_db == pytest.approx(
        10 * math.log10((reference.astype(np.float64) ** 2).sum() / (noise**2).sum())
    )
    cosine = (values * reference).sum() / np.linalg.norm(values) / np.linalg.norm(reference)
    assert found.cosine == pytest.approx(cosine, rel=1e-6)
    assert found.max_abs_error == pytest.approx(np.abs(noise).max(), rel=1e-6)


def test_equal_and_silent_tensors():
    ones, zeros = np.ones((4, 2), np.float32), np.zeros((4, 2), np.float32)
    assert distance(ones, ones).snr_db == math.inf and distance(ones, ones).metrics()["snr_db"] is None
    assert distance(zeros, zeros).cosine == 1.0
    assert distance(zeros, ones).snr_db == -math.inf and distance(zeros, ones).cosine == 0.0


def test_the_graph_and_its_engine_show_the_same_tensors(tmp_path):
    model = residual()
    build_engine(model, None, tmp_path / "r.xml", "openvino")
    graph, engine = GraphProbe(model, "r"), OpenVinoProbe(tmp_path / "r.xml", RunOptions(threads=1))
    assert engine.output == "y" and graph.shows("c2") and engine.shows("c2")
    assert not graph.shows("none") and not engine.shows("none")
    names = ["c1", "c2", "y"]
    mine, theirs = graph.run(images(5), names), engine.run(images(5), names)
    for name in names:
        np.testing.assert_allclose(mine[name], theirs[name], atol=1e-4)
    outputs = OutputProbe(load_engine(tmp_path / "r.xml", None, RunOptions(threads=1)), "y")
    np.testing.assert_allclose(outputs.run(images(5), ["y"])["y"], mine["y"], atol=1e-4)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_overflows_is_nothing_but_noise(value):
    distance = Distance()
    distance.add(np.ones(4, np.float32), np.array([1, value, 1, 1], np.float32))
    assert distance.snr_db == -math.inf
    assert distance.metrics()["snr_db"] is None and distance.metrics()["cosine"] is None
    json.dumps(distance.metrics(), allow_nan=False)
