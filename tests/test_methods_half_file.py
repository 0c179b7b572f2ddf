"""Half precision on disk, and what every command makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rcompress.artifacts.checkpoint import read_checkpoint, write_checkpoint
from rcompress.artifacts.onnx_file import read_onnx, write_graph
from rcompress.engines import RunOptions, load_engine
from rcompress.errors import RcompressError
from rcompress.methods.half_file import write_half_checkpoint
from rcompress.models import load_model
from tests.tiny import tiny_checkpoint, tiny_graph

X = np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "r20.pth")


@pytest.mark.parametrize(("half", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_a_checkpoint_is_half_as_large_and_loads_in_fp32(source: Path, half: str, kind: torch.dtype) -> None:
    target = source.with_name("half.pth")
    write_half_checkpoint(source, target, half)
    stored = read_checkpoint(target).state_dict
    assert {tensor.dtype for tensor in stored.values()} == {kind, torch.int64}
    assert target.stat().st_size < 0.6 * source.stat().st_size
    before, after = load_model(source).module.state_dict(), load_model(target).module.state_dict()
    for name, tensor in before.items():
        expected = tensor.to(kind).float() if tensor.is_floating_point() else tensor
        assert torch.equal(after[name], expected) and after[name].dtype == expected.dtype


@pytest.mark.parametrize(("half", "executed"), [("fp16", {"F32": 22}), ("bf16", {"BF16": 22})])
def test_the_torch_engine_says_what_it_computes_in(source: Path, half: str, executed: dict[str, int]) -> None:
    target = source.with_name("half.pth")
    write_half_checkpoint(source, target, half)
    engine = load_engine(target, None, RunOptions(threads=1))
    assert engine.info.executed == executed
    found = engine.run(X)
    expected = load_engine(source, None, RunOptions(threads=1)).run(X)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def test_weights_too_large_for_fp16_are_refused(source: Path) -> None:
    loaded = load_model(source)
    state = loaded.module.state_dict()
    state["conv1.weight"][0, 0, 0, 0] = 1e6
    write_checkpoint(source, loaded.spec, state)
    with pytest.raises(RcompressError, match=r"conv1.weight is too large for FP16; use --bf16"):
        write_half_checkpoint(source, source.with_name("half.pth"), "fp16")
    write_half_checkpoint(source, source.with_name("half.pth"), "bf16")


def test_on_the_command_line(rcompress, source: Path) -> None:
    run = rcompress("quantize", source, "--fp16", "-o", source.with_name("r20-fp16.pth"))
    assert run.code == 0, run.err
    told = json.loads(rcompress("inspect", source.with_name("r20-fp16.pth"), "--json").out)
    full = json.loads(rcompress("inspect", source, "--json").out)
    assert told["metrics"]["weights_bytes"] < 0.51 * full["metrics"]["weights_bytes"]
    assert told["metrics"]["macs"] == full["metrics"]["macs"]
    assert told["model"]["lineage"][-1]["options"] == {"precision": "fp16"}
    run = rcompress("quantize", source, "--fp16")
    assert run.code == 0 and run.out.strip().endswith("r20-fp16.onnx")
    graph = load_engine(Path(run.out.strip()), "torch", RunOptions(threads=1))
    assert graph.info.executed == {"F16": 22} and graph.info.input_dtype == "float32"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fp16", "--bf16"), "choose one of"),
        (("--fp16", "-o", "a.xml"), "choose .onnx, or .pth"),
        (("--fp16", "--max-drop", 0.1), "writes no integers"),
        (("--bf16", "--weight-bits", 4), "writes no integers"),
        (("--fp16", "--skip", "fc"), "writes no integers"),
    ],
)
def test_wrong_wishes(rcompress, source: Path, monkeypatch, words: tuple[str, ...], said: str) -> None:
    monkeypatch.chdir(source.parent)
    run = rcompress("quantize", source, *words)
    assert run.code == 2 and said in run.err


def test_a_foreign_graph_keeps_what_the_options_say_of_its_images(rcompress, tmp_path: Path) -> None:
    source = write_graph(tmp_path / "net.onnx", tiny_graph(), None)
    run = rcompress("quantize", source, "--fp16", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2")
    assert run.code == 0, run.err
    spec = read_onnx(Path(run.out.strip())).spec
    assert spec is not None and spec.preprocessing.std == (0.2, 0.2, 0.2)
