"""The CPU backends behind one interface: same logits, honest reports, one line for damaged files."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from onnx import helper

from rcompress.artifacts.files import sha256_of
from rcompress.artifacts.machine import available_cores
from rcompress.artifacts.onnx_file import write_onnx
from rcompress.engines import Backend, BuildOptions, RunOptions, available_backends, build_engine, load_engine
from rcompress.engines.base import Engine, FloatArray
from rcompress.engines.evaluation import run_padded
from rcompress.engines.selection import choose_backend
from rcompress.engines.status import installed_version
from rcompress.errors import RcompressError
from rcompress.methods.lower_precision import lower_precision
from rcompress.methods.quantize import quantize_onnx
from tests.graphs import SPEC, images, model, residual, tensors

ONE = RunOptions(threads=1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "net.onnx", residual(), SPEC)


@pytest.fixture
def xml(tmp_path: Path) -> Path:
    return build_engine(residual(), SPEC, tmp_path / "net.xml", "openvino")


def quantized():
    return quantize_onnx(residual(), [torch.from_numpy(images(32))], 32).model


def test_all_backends_give_the_same_logits(source: Path, xml: Path) -> None:
    x = images(5)
    engines = [load_engine(source, backend, ONE) for backend in ("onnxruntime", "openvino", "torch")]
    engines.append(load_engine(xml, None, ONE))
    expected = engines[0].run(x)
    assert expected.shape == (5, 4) and expected.dtype == np.float32
    for engine in engines:
        np.testing.assert_allclose(engine.run(x), expected, atol=1e-5)
        np.testing.assert_allclose(engine.run(x[:2]), expected[:2], atol=1e-5)
        engine.close()


def test_info_describes_the_engine(xml: Path) -> None:
    info = load_engine(xml, None, ONE).info
    assert info.backend == "openvino" and info.sha256 == sha256_of(xml) and info.spec == SPEC
    assert info.input_shape == (None, 3, 8, 8) and info.input_dtype == "float32"
    assert info.executed == {"F32": 3}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_prepared_call_computes_again_on_the_same_images(source: Path, backend: str) -> None:
    engine = load_engine(source, backend, ONE)

    def quickest(count: int) -> float:
        call = engine.prepare(images(count))
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
        return min(taken)

    assert quickest(4096) > 10 * quickest(1)  # some 210 million MACs against 50 thousand: it does compute


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize(
    "wrong", [images(2)[:, :, :4], images(2).astype(np.float64), images(2)[0]], ids=["size", "dtype", "rank"]
)
def test_other_images_are_refused(source: Path, backend: str, wrong: np.ndarray) -> None:
    with pytest.raises(RcompressError, match=r"takes float32 of shape N x 3 x 8 x 8"):
        load_engine(source, backend, ONE).run(wrong)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_a_batch_that_the_graph_cannot_take_is_one_line(tmp_path: Path, backend: Backend) -> None:
    """Declared free, but one image is built into it (OpenVINO frees it by itself)."""
    nodes = [
        helper.make_node("Reshape", ["x", "row"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    constants = tensors(row=np.array([1, 192]), w=np.ones((192, 4)))
    path = write_onnx(tmp_path / "net.onnx", model(nodes, constants, output=None), SPEC)
    engine = load_engine(path, backend, ONE)
    assert engine.run(images(1)).shape == (1, 4)
    with pytest.raises(RcompressError, match=r"net\.onnx: .* cannot run it on 3 x 3 x 8 x 8") as caught:
        engine.run(images(3))
    assert "\n" not in str(caught.value)
    with pytest.raises(RcompressError, match="cannot run it on 3 x 3 x 8 x 8"):
        engine.prepare(images(3))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_every_image_has_a_row_of_outputs(tmp_path: Path, backend: Backend) -> None:
    for keepdims, shape in ((1, r"\(1, 3, 1, 1\)"), (0, r"\(3,\)")):
        nodes = [helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=keepdims)]
        made = model(nodes, tensors(axes=np.array([0, 2, 3])), output=None)
        engine = load_engine(write_onnx(tmp_path / "net.onnx", made, SPEC), backend, ONE)
        for use in (engine.run, engine.prepare):
            with pytest.raises(RcompressError, match=f"gives outputs of {shape} for 4 images"):
                use(images(4))


def test_int8_convolutions_are_counted_as_they_run(tmp_path: Path) -> None:
    model = quantized()
    for backend, name in (("openvino", "q.xml"), ("onnxruntime", "q.onnx")):
        executed = load_engine(build_engine(model, SPEC, tmp_path / name, backend), None, ONE).info.executed
        assert executed["I8"] >= 2, executed
    fake = load_engine(tmp_path / "q.onnx", "torch", ONE).info
    assert fake.executed == {"F32": 3}  # the executor imitates INT8 in FP32


def test_openvino_computes_in_fp32_unless_told_otherwise(tmp_path: Path, xml: Path) -> None:
    import openvino

    bf16 = build_engine(residual(), SPEC, tmp_path / "b.xml", "openvino", BuildOptions(precision="bf16"))
    assert load_engine(xml, None, ONE).info.executed == {"F32": 3}
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert "BF16" in load_engine(bf16, None, ONE).info.executed


@pytest.mark.parametrize(("backend", "name"), [("openvino", "h.xml"), ("onnxruntime", "h.onnx")])
def test_fp16_halves_the_weights_and_keeps_the_classes(tmp_path: Path, backend: str, name: str) -> None:
    model = residual(width=64)
    full = build_engine(model, SPEC, tmp_path / f"full{name}", backend)
    options = BuildOptions(precision="fp16")
    half = build_engine(lower_precision(model, "fp16"), SPEC, tmp_path / name, backend, options)
    weights = [path.with_suffix(".bin") if path.suffix == ".xml" else path for path in (half, full)]
    assert weights[0].stat().st_size < 0.6 * weights[1].stat().st_size
    x = images(50)
    found, expected = (load_engine(path, None, ONE).run(x) for path in (half, full))
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_onnxruntime_refuses_bf16(tmp_path: Path) -> None:
    with pytest.raises(RcompressError, match="no BF16 convolution"):
        build_engine(residual(), SPEC, tmp_path / "b.onnx", "onnxruntime", BuildOptions(precision="bf16"))


def test_foreign_graph_builds_without_a_description(tmp_path: Path) -> None:
    path = build_engine(residual(), None, tmp_path / "f.xml", "openvino")
    engine = load_engine(path, None, ONE)
    assert engine.info.spec is None and engine.run(images(1)).shape == (1, 4)


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("name", ["net.onnx", "net.xml", "net.bin"])
def test_damaged_files_are_one_clear_error(source: Path, xml: Path, name: str, share: float) -> None:
    cut(source.with_name(name), share)
    with pytest.raises(RcompressError) as error:
        load_engine(source if name == "net.onnx" else xml, None, ONE)
    assert name.partition(".")[0] in error.value.subject and "\n" not in str(error.value)


def test_weights_of_another_engine_are_noticed(tmp_path: Path, xml: Path) -> None:
    other = build_engine(residual(seed=7), SPEC, tmp_path / "other.xml", "openvino")
    xml.with_suffix(".bin").write_bytes(other.with_suffix(".bin").read_bytes())
    with pytest.raises(RcompressError, match=r"does not belong to net\.xml"):
        load_engine(xml, None, ONE)


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """Files may not grow beyond so many bytes from here on."""
    resource = pytest.importorskip("resource", reason="this system has no limit of file sizes")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("backend", "name"), [("openvino", "net.xml"), ("onnxruntime", "net.onnx")])
def test_a_failed_build_leaves_the_old_engine(
    source: Path, xml: Path, full_disk: Callable[[int], None], backend: str, name: str
) -> None:
    before = {path.name: path.read_bytes() for path in source.parent.iterdir()}
    full_disk(1000)
    with pytest.raises(RcompressError, match=r"cannot be written|cannot write"):
        build_engine(residual(seed=5), SPEC, source.with_name(name), backend)
    full_disk(2**30)
    assert {path.name: path.read_bytes() for path in source.parent.iterdir()} == before
    load_engine(source.with_name(name), None, ONE).run(images(1))


def test_missing_and_unknown_files(tmp_path: Path, source: Path) -> None:
    with pytest.raises(RcompressError, match="no such file"):
        load_engine(tmp_path / "none.xml")
    other = tmp_path / "a.tflite"
    other.write_bytes(b"x")
    with pytest.raises(RcompressError, match=r"no backend runs \.tflite"):
        load_engine(other)
    with pytest.raises(RcompressError, match="tensorrt does not run"):
        load_engine(source, "tensorrt")


def test_checkpoint_runs_as_a_module(trained: Path) -> None:
    from rcompress.data import input_batches, open_dataset

    engine = load_engine(trained, None, ONE)
    assert engine.info.backend == "torch" and engine.info.spec is not None
    batch, labels = next(
        input_batches(open_dataset("digits").split("test"), engine.info.spec.preprocessing, 100)
    )
    assert (engine.run(batch.numpy()).argmax(1) == labels.numpy()).mean() > 0.9
    assert engine.info.executed == {"F32": 22}


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_programs_are_refused(trained: Path, tmp_path: Path, suffix: str) -> None:
    """They are code: we write them for deployment, and open them nowhere."""
    from rcompress.export import exported_program_bytes, torchscript_bytes
    from rcompress.models import load_model

    loaded = load_model(trained)
    path = tmp_path / f"net{suffix}"
    convert = torchscript_bytes if suffix == ".pt" else exported_program_bytes
    path.write_bytes(convert(loaded.module, loaded.spec))
    with pytest.raises(RcompressError, match="is a PyTorch program"):
        load_engine(path, None, ONE)


def test_every_backend_says_whether_it_is_usable() -> None:
    found = {status.backend: status for status in available_backends()}
    assert set(found) == set(get_args(Backend))
    assert all(found[name].usable for name in ("torch", "onnxruntime", "openvino"))
    for status in found.values():
        assert status.usable or (status.fault and status.remedy)


def test_a_package_is_found_under_the_name_it_was_installed_by(monkeypatch) -> None:
    """tensorrt comes as tensorrt-cu12 or -cu13 too."""
    version = importlib.metadata.version
    known = version("onnxruntime")

    def renamed(name: str) -> str:
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return known if name == "onnxruntime-cu13" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", renamed)
    monkeypatch.setattr(
        importlib.metadata, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime-cu13"]}
    )
    assert installed_version("onnxruntime") == known


def test_suffix_chooses_the_backend() -> None:
    assert choose_backend(None, Path("a.xml")) == "openvino"
    assert choose_backend(None, Path("a.onnx")) == "onnxruntime"
    assert choose_backend("onnxruntime", None) == "onnxruntime"
    with pytest.raises(RcompressError, match=r"call it a\.onnx"):
        choose_backend("onnxruntime", Path("a.xml"))
    with pytest.raises(RcompressError, match="no engine is called so"):
        choose_backend(None, Path("a.bin"))


class Limited:
    """An engine that was built for batches of 2 to 4."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.info = engine, replace(engine.info, batch_limits=(2, 4))

    def run(self, images: FloatArray) -> FloatArray:
        assert self.info.allows(len(images))
        return self.engine.run(images)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
def test_limits_of_the_batch_are_kept(source: Path, count: int) -> None:
    engine = load_engine(source, "onnxruntime", ONE)
    np.testing.assert_allclose(
        run_padded(Limited(engine), images(count)), engine.run(images(count)), atol=1e-5
    )


@pytest.mark.parametrize(("asked", "nearest"), [(1, 2), (2, 2), (3, 3), (4, 4), (64, 4)])
def test_the_nearest_batch(source: Path, asked: int, nearest: int) -> None:
    info = replace(load_engine(source, "onnxruntime", ONE).info, batch_limits=(2, 4))
    assert info.nearest_batch(asked) == nearest
    assert replace(info, input_shape=(8, 3, 8, 8)).nearest_batch(asked) == 8
    assert replace(info, batch_limits=None).nearest_batch(asked) == asked


@pytest.mark.parametrize("device", ["gpu", "cdua", "cuda:x", "cuda:"])
def test_devices_that_are_none_are_refused(source: Path, device: str) -> None:
    with pytest.raises(RcompressError, match="no such kind of device"):
        load_engine(source, None, RunOptions(device))


@pytest.mark.parametrize("threads", [1, 2])
def test_engines_run_on_the_threads_they_are_given(source: Path, xml: Path, threads: int) -> None:
    if threads > available_cores():
        pytest.skip("there is one core")
    options = RunOptions(threads=threads)
    session = load_engine(source, "onnxruntime", options)._session
    assert session.get_session_options().intra_op_num_threads == threads
    compiled = load_engine(xml, None, options)._request((1, 3, 8, 8)).get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
    load_engine(source, "torch", options).run(images(1))
    assert torch.get_num_threads() == threads


def test_no_number_of_threads_is_all_cores(source: Path) -> None:
    assert RunOptions().cpu_threads == available_cores()
    session = load_engine(source, "onnxruntime")._session
    assert session.get_session_options().intra_op_num_threads == available_cores()
