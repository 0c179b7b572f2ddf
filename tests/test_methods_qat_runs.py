"""Runs of quantization-aware training: what is refused, resuming, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from rcompress.artifacts.onnx_file import read_onnx
from rcompress.artifacts.spec import ModelSpec
from rcompress.data import open_dataset
from rcompress.errors import RcompressError
from rcompress.methods.placement import LayerBits
from rcompress.methods.qat import QatOptions, Trained, require_trainable, train_quantized
from rcompress.methods.quantize import QuantizeOptions, quantize_onnx
from rcompress.training import Recipe, Settings
from tests.graphs import SPEC, residual

CPU = Settings(torch.device("cpu"))


def test_graphs_that_cannot_be_fed_are_refused() -> None:
    mixing = residual(batch=2)
    with pytest.raises(RcompressError, match="batch size is built into"):
        require_trainable(mixing, SPEC)


def small(classes: int = 10) -> onnx.ModelProto:
    """The residual block for 32 x 32 images of ten classes."""
    made = residual()
    for value, shape in ((made.graph.input[0], (3, 32, 32)), (made.graph.output[0], (classes,))):
        for axis, size in enumerate(shape, start=1):
            value.type.tensor_type.shape.dim[axis].dim_value = size
    del made.graph.value_info[:]
    random = np.random.default_rng(0)
    head = {"w3": random.standard_normal((classes, 8)), "b3": random.standard_normal(classes)}
    for tensor in made.graph.initializer:
        if tensor.name in head:
            tensor.CopyFrom(numpy_helper.from_array(head[tensor.name].astype(np.float32), tensor.name))
    return made


def test_a_killed_run_goes_on_to_the_same_graph(tmp_path: Path, monkeypatch) -> None:
    from rcompress.training.journal import Journal

    dataset, original = open_dataset("digits"), small()
    spec = ModelSpec(10, dataset.preprocessing())
    batch = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    quantized = quantize_onnx(original, [batch], 16, QuantizeOptions(bits=LayerBits(4))).model
    recipe = Recipe(epochs=2, batch_size=400, optimizer="adamw", learning_rate=1e-2, ema=0.5)

    def run(name: str, resume: bool = False) -> Trained:
        target = tmp_path / name
        return train_quantized(
            quantized, original, spec, dataset, recipe, QatOptions(), CPU, target, {}, resume=resume
        )

    whole = run("whole.onnx")
    write = Journal.write

    def killed(self, trainer) -> None:
        write(self, trainer)
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        run("cut.onnx")
    monkeypatch.setattr(Journal, "write", write)
    again = run("cut.onnx", resume=True)
    assert again.model == whole.model != quantized
    assert [epoch["train_loss"] for epoch in again.outcome.history] == [
        epoch["train_loss"] for epoch in whole.outcome.history
    ]


def test_command_trains_writes_and_checks(rcompress, trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "net.onnx"
    words = ("quantize", trained, "--weight-bits", "4", "--qat", "--epochs", "1", "--batch-size", "64")
    run = rcompress(*words, "--json", "--threads", "1", "-o", target)
    assert run.code == 0, run.err
    told = json.loads(run.out)
    metrics, agreement = told["metrics"], {entry["engine"]: entry for entry in told["agreement"]}
    assert metrics["top1_percent"] > metrics["untrained_top1_percent"]
    assert agreement["unoptimised ONNX Runtime"]["flips"] == 0
    assert all(entry["fault"] is None and entry["images"] == 500 for entry in agreement.values())
    assert max(entry["flips"] for entry in agreement.values()) <= 5
    step = read_onnx(target).spec.lineage[-1]
    assert step.command == "quantize" and step.chosen_on == "validation"
    assert step.options["qat"]["scales"] == "lsq" and step.options["distillation"]["teachers"]
    assert step.metrics["top1_percent"] == metrics["top1_percent"]
    assert not target.with_suffix(".resume").exists()


def test_options_of_training_without_it_are_wrong_usage(rcompress, trained: Path) -> None:
    for words in (("--epochs", "2"), ("--scales", "lsq"), ("--resume",), ("--alpha", "0.5")):
        run = rcompress("quantize", trained, *words)
        assert run.code == 2 and "--qat" in run.err


def test_foreign_graph_is_trained(rcompress, tmp_path: Path) -> None:
    onnx.save(small(), tmp_path / "foreign.onnx")
    run = rcompress(
        "quantize", tmp_path / "foreign.onnx", "--qat", "--epochs", "1", "--batch-size", "400",
        "--calib", "digits:32", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--threads", "1",
    )  # fmt: skip
    assert run.code == 0, run.err
    step = read_onnx(Path(run.out.strip())).spec.lineage[-1]
    assert step.options["distillation"]["teachers"] == [step.parent_sha256]  # it teaches itself
    assert step.chosen_on == "test-a" and step.parent_name == "foreign.onnx"
