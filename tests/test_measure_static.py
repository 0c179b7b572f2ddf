"""The figures that need no run, of every kind of file."""

from __future__ import annotations

import pytest

from rcompress.engines import build_engine
from rcompress.errors import RcompressError
from rcompress.measure.static import file_metrics
from tests import tiny


def test_a_checkpoint(tmp_path):
    path = tiny.tiny_checkpoint(tmp_path / "r20.pth")
    metrics = file_metrics(path, None)
    assert metrics["parameters"] == 272_474  # 16-32-64 channels, projection shortcuts, ten classes
    assert metrics["macs"] == 40_813_184
    assert metrics["size_bytes"] == path.stat().st_size > metrics["weights_bytes"] > 4 * 272_474
    assert file_metrics(path.rename(tmp_path / "r20.pt"), None) == metrics


def test_an_onnx_file(tmp_path):
    path = tiny.tiny_onnx(tmp_path / "t.onnx")
    assert file_metrics(path, None) == {
        "size_bytes": path.stat().st_size,
        "weights_bytes": 4 * tiny.PARAMETERS,
        "parameters": tiny.PARAMETERS,
        "nonzero_parameters": tiny.PARAMETERS,
        "nonzero_bits": 32 * tiny.PARAMETERS,
        "macs": tiny.MACS,
        "bit_operations": 32 * tiny.MACS,
    }


@pytest.mark.parametrize(("command", "bits"), [(("quantize", "--bf16"), 16), (("cluster",), 32)])
def test_checkpoints_count_the_bits_that_they_store(tmp_path, rcompress, command, bits):
    source, target = tiny.tiny_checkpoint(tmp_path / "r20.pth"), tmp_path / "out.pth"
    assert rcompress(command[0], source, *command[1:], "-o", target).code == 0
    plain, made = file_metrics(source, None), file_metrics(target, None)
    assert plain["nonzero_bits"] == 32 * plain["nonzero_parameters"]
    assert made["bit_operations"] == bits * plain["macs"]
    expected = 16 * made["nonzero_parameters"] if bits == 16 else 8 * made["weights_bytes"]
    assert made["nonzero_bits"] == expected < 0.6 * plain["nonzero_bits"]


def test_an_engine_takes_from_its_history_what_it_does_not_tell(tmp_path):
    path = build_engine(tiny.tiny_graph(), tiny.tiny_spec(), tmp_path / "t.xml", "openvino")
    weights = path.with_suffix(".bin")
    metrics = file_metrics(path, tiny.tiny_spec())
    assert metrics == {
        "size_bytes": path.stat().st_size + weights.stat().st_size,
        "weights_bytes": weights.stat().st_size,
        "parameters": tiny.PARAMETERS,
        "macs": tiny.MACS,
    }
    assert set(file_metrics(path, None)) == {"size_bytes", "weights_bytes"}


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nothing like it")
    with pytest.raises(RcompressError, match=r"broken\.onnx"):
        file_metrics(path, None)
