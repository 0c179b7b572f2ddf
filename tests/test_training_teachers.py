"""Teachers: files of every kind, one or several, and those that do not fit the student."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rcompress.artifacts.checkpoint import read_checkpoint
from rcompress.artifacts.onnx_file import read_onnx, write_onnx
from rcompress.data import input_batches, open_dataset
from rcompress.engines import build_engine, load_engine
from rcompress.errors import RcompressError
from rcompress.export import onnx_from_module
from rcompress.models import load_model
from rcompress.training import Settings
from rcompress.training.lessons import Ensemble
from rcompress.training.teachers import load_member, open_teacher
from tests.tiny import tiny_graph, tiny_spec

CPU = Settings(torch.device("cpu"))


def inputs_of(dataset, count=16):
    return next(input_batches(dataset.split("test"), dataset.preprocessing(), count))


def test_an_onnx_teacher_says_what_its_checkpoint_says(trained, tmp_path):
    loaded = load_model(trained)
    dataset = open_dataset("digits")
    path = write_onnx(tmp_path / "t.onnx", onnx_from_module(loaded.module, loaded.spec), loaded.spec)
    inputs, _ = inputs_of(dataset)
    says = [open_teacher([file], loaded.spec, CPU).logits(inputs) for file in (trained, path)]
    torch.testing.assert_close(says[0], says[1], rtol=1e-4, atol=1e-4)
    fixed = read_onnx(path).model
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7
    seven = write_onnx(tmp_path / "seven.onnx", fixed, loaded.spec)
    torch.testing.assert_close(
        open_teacher([seven], loaded.spec, CPU).logits(inputs), says[0], rtol=1e-4, atol=1e-4
    )


def test_a_compiled_engine_teaches(trained, tmp_path, rcompress):
    built = rcompress("build-engine", trained, "-o", tmp_path / "t.xml")
    assert built.code == 0, built.err
    loaded = load_model(trained)
    inputs, _ = inputs_of(open_dataset("digits"))
    says = [open_teacher([file], loaded.spec, CPU).logits(inputs) for file in (trained, tmp_path / "t.xml")]
    torch.testing.assert_close(says[0], says[1], rtol=1e-3, atol=1e-3)


def test_each_teacher_gets_its_own_normalisation(trained, tmp_path):
    loaded = load_model(trained)
    dataset = open_dataset("digits")
    inputs, _ = inputs_of(dataset)
    elsewhere = replace(loaded.spec.preprocessing, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    student = replace(loaded.spec, preprocessing=elsewhere)
    theirs = (inputs * 0.3272 + 0.3053 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.2, 0.3, 0.4]
    ).view(3, 1, 1)
    with torch.no_grad():
        expected = loaded.module(inputs)
    torch.testing.assert_close(
        open_teacher([trained], student, CPU).logits(theirs)[0], expected, rtol=1e-3, atol=1e-3
    )


def test_unfit_teachers_are_refused(trained, tmp_path):
    read = read_checkpoint(trained)
    names = tuple("abcdefghij")
    for changes, word in (
        ({"class_names": names, "dataset": "letters"}, "letters"),
        ({"input_size": (3, 64, 64)}, "3 x 64 x 64"),
    ):
        student = replace(read.spec, preprocessing=replace(read.spec.preprocessing, **changes))
        with pytest.raises(RcompressError, match=word):
            open_teacher([trained], student, CPU)
    with pytest.raises(RcompressError, match="does not say how"):
        model = onnx_from_module(load_model(trained).module, read.spec)
        del model.metadata_props[:]
        (tmp_path / "bare.onnx").write_bytes(model.SerializeToString())
        load_member(tmp_path / "bare.onnx", CPU)


def test_an_ensemble_is_scored_by_its_mean(trained):
    loaded = load_model(trained)
    inputs, _ = inputs_of(open_dataset("digits"))
    two = open_teacher([trained, trained], loaded.spec, CPU)
    with torch.no_grad():
        expected = torch.softmax(loaded.module(inputs), dim=1)
    torch.testing.assert_close(Ensemble(two)(inputs).exp(), expected)


def test_an_engine_teaches_where_it_runs(trained, tmp_path, monkeypatch):
    """Whatever the device of the training: OpenVINO knows the CPU alone."""
    engine = build_engine(tiny_graph(), tiny_spec(), tmp_path / "t.xml", "openvino")
    asked = []

    def load(path, backend, options):
        asked.append(options.device)
        return load_engine(path, backend, options)

    monkeypatch.setattr("rcompress.training.teachers.load_engine", load)
    load_member(engine, Settings(torch.device("cuda")))
    assert asked == ["auto"]
