"""The advice that doctor gives, for machines with and without a GPU."""

from __future__ import annotations

import json

import psutil
import pytest

from rcompress.engines.base import BackendStatus
from rcompress.engines.doctor import Gpu, advise, examine

TORCH, OPENVINO = BackendStatus("torch", "2"), BackendStatus("openvino", "2026")
TENSORRT = BackendStatus("tensorrt", "11")
NO_TENSORRT = BackendStatus("tensorrt", None, "the package is not installed", "pip install it")
GPU = Gpu("H200", "9.0", 140 * 1024**3, None, ())


@pytest.mark.parametrize(
    ("features", "gpus", "backends", "backend", "precision"),
    [
        (("avx512_vnni",), (), (TORCH, OPENVINO), "openvino", "int8"),
        (("avx2",), (), (TORCH, OPENVINO), "openvino", "fp32"),
        (("avx512_vnni",), (), (TORCH,), "onnxruntime", "int8"),
        (("avx2",), (GPU,), (TORCH, OPENVINO, TENSORRT), "tensorrt", "int8"),
        (("avx512_vnni",), (GPU,), (TORCH, OPENVINO, NO_TENSORRT), "openvino", "int8"),
        (("avx512_vnni",), (), (TORCH, OPENVINO, TENSORRT), "openvino", "int8"),
    ],
    ids=["VNNI", "AVX2", "no OpenVINO", "GPU", "GPU without TensorRT", "TensorRT without GPU"],
)
def test_advice(features, gpus, backends, backend, precision):
    found = advise(features, gpus, backends)
    assert (found.backend, found.precision) == (backend, precision)
    if gpus:
        assert found.training_precision == "bf16"
    if gpus and TENSORRT not in backends:
        assert "install TensorRT" in found.reason


def test_datasets_are_found_in_either_layout(tmp_path):
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "train-00000.parquet").touch()
    (tmp_path / "cifar-100-python").mkdir()
    assert examine(tmp_path).datasets == {
        "cifar10": str(tmp_path / "cifar10"),
        "cifar100": str(tmp_path / "cifar-100-python"),
        "tiny-imagenet": None,
    }


def test_the_findings_are_of_this_machine_and_primitives(tmp_path):
    found = examine(tmp_path)
    again = json.loads(json.dumps(found.to_dict()))
    assert again["memory_bytes"] == psutil.virtual_memory().total
    assert {entry["backend"] for entry in again["backends"] if entry["usable"]} >= {"torch", "openvino"}
    assert all(entry["usable"] or entry["remedy"] for entry in again["backends"])
    assert bool(found.gpus) != bool(found.gpu_fault)
