"""Atomic writes and the checks before them."""

from __future__ import annotations

import subprocess

import pytest
import torch

from rcompress.artifacts.checkpoint import write_checkpoint
from rcompress.artifacts.files import require_file, require_output, sha256_of, write_atomic
from rcompress.artifacts.records import write_records
from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.errors import RcompressError
from rcompress.methods.calibration_cache import CalibrationCache, write_cache
from tests import reporting, tiny


def test_write_replaces_whole_and_leaves_no_temporary(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")
    write_atomic(path, b"new content")
    assert path.read_bytes() == b"new content"
    assert list(tmp_path.iterdir()) == [path]


def _checkpoint(path):
    spec = ModelSpec(10, Preprocessing((3, 8, 8), (0.5,) * 3, (0.5,) * 3))
    return write_checkpoint(path, spec, {"w": torch.ones(3)})


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_atomic(path, b"new"),
        _checkpoint,
        lambda path: write_records(path, reporting.family()),
        lambda path: write_cache(path, CalibrationCache("digits", 1, "minmax", "cpu", "", {})),
        tiny.tiny_onnx,
    ],
    ids=["bytes", "checkpoint", "records", "calibration", "onnx"],
)
def test_a_full_disk_keeps_every_old_file(tmp_path, monkeypatch, write):
    path = tmp_path / "old"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RcompressError, match="No space left on device"):
        write(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["missing", "folder", "empty"])
def test_unreadable_inputs_are_named(tmp_path, kind):
    path = tmp_path / "model.pth"
    if kind == "folder":
        path.mkdir()
    if kind == "empty":
        path.touch()
    with pytest.raises(RcompressError, match=r"model\.pth: "):
        require_file(path)


def test_output_must_not_be_the_input(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"x")
    with pytest.raises(RcompressError, match="is also the input"):
        require_output(tmp_path / "." / "model.pth", [path])


def test_output_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(RcompressError, match="is a file, not a folder"):
        require_output(tmp_path / "file" / "model.pth")


def test_sha256_agrees_with_coreutils(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 10)
    expected = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[
        0
    ]
    assert sha256_of(path) == expected
