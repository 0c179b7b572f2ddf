"""Export: one self-contained ONNX file that any runtime opens, equal to its source."""

from __future__ import annotations

import copy
import json
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from rcompress.artifacts.onnx_file import read_onnx, write_onnx
from rcompress.errors import RcompressError
from rcompress.export import export_onnx, exported_program_bytes, torchscript_bytes
from rcompress.models import load_model


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    loaded = load_model(trained)
    result = export_onnx(loaded.module, loaded.spec)
    path = tmp_path_factory.mktemp("exported") / "r20.onnx"
    write_onnx(path, result.model, result.spec)
    return loaded, result, path


def test_onnxruntime_alone_runs_it_at_any_batch(exported):
    loaded, result, path = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        images = torch.randn(batch, 3, 32, 32)
        with torch.inference_mode():
            expected = loaded.module(images).numpy()
        np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected, atol=1e-4)
    assert result.max_abs_difference < 1e-4


def test_graph_is_folded_and_tidy(exported):
    _, result, path = exported
    graph = result.model.graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("Conv") == 21
    assert "BatchNormalization" not in kinds
    assert {"conv1", "layer2.0.downsample.0", "fc"} <= {node.name for node in graph.node}
    assert not list(path.parent.glob("*.data"))
    assert path.stat().st_size < 4 * 272_474 + 40_000


def test_the_graph_is_the_same_however_weights_lie_in_memory(exported):
    """Training leaves 1 x 1 weights in channels-last order, which a file keeps."""
    loaded, result, _ = exported
    trained = copy.deepcopy(loaded.module).to(memory_format=torch.channels_last)
    again = export_onnx(trained, loaded.spec).model.graph.node
    assert [node.op_type for node in again] == [node.op_type for node in result.model.graph.node]
    assert trained.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_description_travels(exported):
    loaded, _, path = exported
    assert read_onnx(path).spec == loaded.spec


def test_preprocessing_inside(exported):
    loaded, _, _ = exported
    result = export_onnx(loaded.module, loaded.spec, with_preprocessing=True)
    assert result.spec.preprocessing.in_graph
    session = onnxruntime.InferenceSession(
        result.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    images = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8)
    prepared = loaded.spec.preprocessing
    floats = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(prepared.mean).view(1, 3, 1, 1)) / torch.tensor(
        prepared.std
    ).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = loaded.module(floats).numpy()
    np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected, atol=1e-3)
    large = np.zeros((1, 48, 64, 3), np.uint8)
    assert session.run(None, {"images": large})[0].shape == (1, 10)


@pytest.mark.parametrize(
    ("convert", "suffix"), [(torchscript_bytes, ".pt"), (exported_program_bytes, ".pt2")]
)
def test_pytorch_formats_run_without_us(exported, tmp_path, convert, suffix):
    loaded, _, _ = exported
    path = tmp_path / f"m{suffix}"
    path.write_bytes(convert(loaded.module, loaded.spec))
    images = torch.randn(3, 3, 32, 32)
    files = {"rcompress.json": ""}
    if suffix == ".pt":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch announces TorchScript's end
            module = torch.jit.load(str(path), _extra_files=files)
    else:
        module = torch.export.load(str(path), extra_files=files).module()
    torch.testing.assert_close(module(images), loaded.module(images), rtol=1e-4, atol=1e-5)
    assert json.loads(files["rcompress.json"])["model"]["arch"] == "resnet20"


@pytest.mark.parametrize("kept", [0.3, 0.99])
def test_truncated_onnx_is_refused(exported, tmp_path, kept):
    content = exported[2].read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(RcompressError, match=r"cut\.onnx: is truncated or not an ONNX model"):
        read_onnx(path)


def test_external_data_are_refused(exported, tmp_path):
    path = tmp_path / "big.onnx"
    onnx.save_model(
        exported[1].model, path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    with pytest.raises(RcompressError, match="keeps its weights in another file"):
        read_onnx(path)


@pytest.mark.parametrize("write", [torchscript_bytes, exported_program_bytes])
def test_what_pytorch_cannot_export_is_one_line(trained, write):
    class Broken(nn.Module):
        def forward(self, images):
            raise TypeError("no such layer")

    with pytest.raises(RcompressError, match="cannot export this network"):
        write(Broken(), load_model(trained).spec)
