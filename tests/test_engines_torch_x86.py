"""PyTorch's own INT8 as an engine file of tensors alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.engines import RunOptions, load_engine, torch_x86
from rcompress.errors import RcompressError
from rcompress.methods.prune import PruneOptions, prune
from rcompress.models import build_model, load_model
from tests.tiny import tiny_checkpoint

pytestmark = pytest.mark.skipif(
    torch_x86.QENGINE not in torch.backends.quantized.supported_engines,
    reason="PyTorch has no x86 kernels here",
)


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """An engine of a pruned ResNet-20, and what the network answered before it was written."""
    folder = tmp_path_factory.mktemp("x86")
    loaded = load_model(tiny_checkpoint(folder / "r20.pth"))
    prune(loaded.module, (3, 32, 32), PruneOptions(0.5))
    converted = torch_x86.convert(loaded.module, [images(8)], "r20")
    with torch.inference_mode():
        expected = converted(images(4, 1)).numpy()
    path = torch_x86.write(folder / "r20.x86", loaded.spec, loaded.module.state_dict(), converted)
    return path, expected


def test_what_is_loaded_answers_bit_for_bit_what_was_written(engine) -> None:
    path, expected = engine
    loaded = load_engine(path, None, RunOptions(threads=1))
    np.testing.assert_array_equal(loaded.run(images(4, 1).numpy()), expected)
    assert loaded.info.executed == {"I8": 22} and loaded.info.backend == "torch-x86"


def test_fixed_shortcuts_are_convolutions_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = build_model("resnet20", 10, shortcut="pad").eval()
    spec = ModelSpec(10, Preprocessing((3, 32, 32), (0.5,) * 3, (0.25,) * 3), "resnet20", {"shortcut": "pad"})
    converted = torch_x86.convert(module, [images(8)], "r20")
    assert type(module.layer2[0].downsample).__name__ == "FixedShortcut"
    path = torch_x86.write(tmp_path / "r20.x86", spec, module.state_dict(), converted)
    loaded = load_engine(path, None, RunOptions(threads=1))
    np.testing.assert_array_equal(loaded.run(images(4, 1).numpy()), converted(images(4, 1)).numpy())
    assert loaded.info.executed == {"I8": 22}


def test_the_file_holds_tensors_and_integers_alone(engine) -> None:
    content = torch.load(engine[0], weights_only=True)
    tensors = content["state_dict"]
    assert not any(tensor.is_quantized for tensor in tensors.values())
    weights = sum(tensor.numel() for tensor in tensors.values() if tensor.dtype == torch.int8)
    shapes = content["shapes"]
    assert weights == sum(np.prod(sizes[1:]) for name, sizes in shapes.items() if len(sizes) in (3, 5))


def _changed(path: Path, target: Path, change) -> Path:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, target)
    return target


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(format="other"), "is no torch-x86 engine"),
        (lambda c: c["shapes"].update({"fc.weight": ["torch.float32", 10, 10**9]}), "claim more values"),
        (lambda c: c["shapes"].update({"fc.weight": ["torch.float32", -1, 2]}), "description is broken"),
        (lambda c: c["shapes"].update({"fc.weight": ["torch.qint8", 1, 2]}), "description is broken"),
        (lambda c: c["shapes"].pop("fc.weight"), "do not make a resnet20"),
        (lambda c: c["state_dict"].pop("conv1.weight"), "do not make a resnet20"),
        (lambda c: c["state_dict"].update({"conv1.weight|scales": torch.ones(2)}), "do not make a resnet20"),
        (
            lambda c: c["state_dict"].update({"conv1.weight": torch.ones(16, 3, 3, 3)}),
            "do not make a resnet20",
        ),
    ],
)
def test_damaged_files_are_one_error(engine, tmp_path: Path, change, said: str) -> None:
    path = _changed(engine[0], tmp_path / "bad.x86", change)
    with pytest.raises(RcompressError, match=said):
        load_engine(path, None, RunOptions(threads=1))


def test_truncated_files_and_other_files_are_refused(engine, tmp_path: Path) -> None:
    (tmp_path / "cut.x86").write_bytes(engine[0].read_bytes()[:1000])
    shutil.copy(tiny_checkpoint(tmp_path / "r20.pth"), tmp_path / "pth.x86")
    for name in ("cut.x86", "pth.x86"):
        with pytest.raises(RcompressError, match=name):
            load_engine(tmp_path / name)


def test_the_command_line_builds_evaluates_and_inspects_it(rcompress, trained: Path, tmp_path: Path) -> None:
    source = Path(shutil.copy(trained, tmp_path / "r20.pth"))
    run = rcompress(
        "build-engine", source, "--int8", "--backend", "torch-x86", "--calib-images", 64, "--json"
    )
    assert run.code == 0, run.err
    told = json.loads(run.out)
    assert told["output"].endswith("r20-int8.x86") and told["executed_layers"] == {"I8": 22}
    assert told["size_bytes"] == Path(told["output"]).stat().st_size < 0.4 * told["source_bytes"]
    scores = json.loads(rcompress("eval", told["output"], "-o", tmp_path / "e.json", "--json").out)
    assert (
        scores["metrics"]["top1_percent"] > 85 and scores["lineage"][-1]["options"]["backend"] == "torch-x86"
    )
    assert "22 layers in I8" in rcompress("inspect", told["output"]).out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("r20.onnx", "--int8"), "give the .pth"),
        (("r20.pth",), "torch-x86 is INT8"),
        (("r20.pth", "--int8", "-o", "r20.xml"), "is no name for torch-x86"),
    ],
)
def test_what_it_cannot_be_made_of(
    rcompress, trained: Path, tmp_path: Path, monkeypatch, words, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(trained, "r20.pth")
    if words[0] == "r20.onnx":
        assert rcompress("export", "r20.pth").code == 0
    run = rcompress("build-engine", *words, "--backend", "torch-x86")
    assert run.code == 1 and said in run.err
    assert not list(tmp_path.glob("*.x86"))
