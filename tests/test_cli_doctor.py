"""``rcompress doctor`` as a user meets it."""

from __future__ import annotations

import json
import sys

import torch

from rcompress.artifacts.machine import machine_summary
from rcompress.cli.app import main


def doctor(monkeypatch, capsys, *arguments: str) -> tuple[str, str]:
    monkeypatch.setattr(sys, "argv", ["rcompress", "doctor", *arguments])
    try:
        main()
    except SystemExit as ended:
        assert not ended.code
    shown = capsys.readouterr()
    return shown.out, shown.err


def test_the_table_says_what_is_here(monkeypatch, capsys, tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    out, err = doctor(monkeypatch, capsys, "--data-dir", str(tmp_path))
    assert err == ""
    rows = {line.strip().split("  ")[0]: line for line in out.splitlines() if line.strip()}
    assert machine_summary()["instruction_set"] in rows["instruction set"]
    for kind in ("FP16", "BF16", "INT8", "2:4 sparsity"):
        assert f"CPU {kind}" in rows
    for backend in ("torch", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"):
        assert f"backend {backend}" in rows
    assert "usable" in rows["backend openvino"]
    assert str(tmp_path / "cifar-10-batches-py") in rows["data cifar10"]
    assert "not found" in rows["data cifar100"] and "--data-dir" in rows["data cifar100"]
    assert torch.__version__.split("+")[0] in rows["versions"]
    assert "--backend" in rows["choose"]


def test_json_is_one_object(monkeypatch, capsys, tmp_path):
    out, err = doctor(monkeypatch, capsys, "--json", "--data-dir", str(tmp_path))
    found = json.loads(out)
    assert err == ""
    assert found["machine"]["cpu"] == machine_summary()["cpu"]
    assert found["data_dir"] == str(tmp_path)
    assert found["advice"]["backend"] in ("openvino", "onnxruntime", "tensorrt", "tensorrt-rtx")
