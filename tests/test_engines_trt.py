"""TensorRT-RTX builds real plans without a GPU; what cannot be done here is refused precisely."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from rcompress.artifacts.files import sha256_of
from rcompress.engines import BuildOptions, RunOptions, backend_status, build_engine, load_engine
from rcompress.engines.plan_file import log_path, read_sidecar, sidecar_path
from rcompress.engines.status import gpu_fault
from rcompress.engines.trt import refuse_unsigned
from rcompress.engines.trt_log import executed_precisions
from rcompress.errors import RcompressError
from rcompress.methods.lower_precision import lower_precision
from rcompress.methods.quantize import QuantizeOptions, quantize_onnx
from rcompress.methods.quantized_source import profile_of
from tests.graphs import SPEC, images, residual, resnet

TARGET = BuildOptions(target="sm_86")
needs_rtx = pytest.mark.skipif(
    backend_status("tensorrt-rtx").version is None, reason="tensorrt-rtx is not installed"
)
needs_no_gpu = pytest.mark.skipif(gpu_fault() is None, reason="this machine has a GPU")


def quantized(model: onnx.ModelProto, profile: str = "tensorrt") -> onnx.ModelProto:
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim][1:]
    batch = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    return quantize_onnx(model, [batch], 4, QuantizeOptions(profile=profile)).model


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return build_engine(quantized(residual()), SPEC, tmp_path / "net.plan", "tensorrt-rtx", TARGET)


@needs_rtx
def test_plan_sidecar_and_log(plan: Path) -> None:
    sidecar = read_sidecar(plan)
    assert sidecar.backend == "tensorrt-rtx" and sidecar.target == "sm_86" and sidecar.spec == SPEC
    assert sidecar.plan_sha256 == sha256_of(plan) and sidecar.batch_range == (1, 1, 64)
    assert sidecar.layers == {"I8": 3}
    assert "LayerType" in log_path(plan).read_text()


@needs_rtx
@pytest.mark.parametrize(("precision", "name"), [("fp32", "F32"), ("fp16", "F16"), ("bf16", "BF16")])
def test_each_precision_builds_and_runs_in_itself(tmp_path: Path, precision: str, name: str) -> None:
    model = residual() if precision == "fp32" else lower_precision(residual(), precision)
    path = build_engine(model, SPEC, tmp_path / "net.plan", "tensorrt-rtx", TARGET)
    assert read_sidecar(path).layers.get(name, 0) >= 2


@needs_rtx
def test_resnet18_in_int8_is_a_third_and_every_convolution_is_int8(tmp_path: Path) -> None:
    import tensorrt_rtx as trt

    from rcompress.engines.trt_log import shared_logger

    model, spec = resnet("resnet18", stem="cifar")
    int8 = quantized(model)
    sizes = {}
    for name, graph in (("fp32", model), ("int8", int8)):
        sizes[name] = (
            build_engine(graph, spec, tmp_path / f"{name}.plan", "tensorrt-rtx", TARGET).stat().st_size
        )
    assert 0.28 < sizes["int8"] / sizes["fp32"] < 0.36

    logger = shared_logger("tensorrt-rtx")
    network = trt.Builder(logger).create_network(1)
    assert trt.OnnxParser(network, logger).parse(int8.SerializeToString())
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    dequantized = {layer.get_output(0).name for layer in layers if layer.type == trt.LayerType.DEQUANTIZE}
    convolutions = [layer for layer in layers if layer.type == trt.LayerType.CONVOLUTION]
    source = sum(node.op_type == "Conv" for node in model.graph.node)
    assert len(convolutions) == source == 20
    assert all({layer.get_input(0).name, layer.get_input(1).name} <= dequantized for layer in convolutions)
    assert read_sidecar(tmp_path / "int8.plan").layers == {"I8": source + 1}


@needs_rtx
def test_unsigned_activations_are_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    with pytest.raises(
        RcompressError, match=r"rcompress build-engine FILE\.onnx --int8 --backend tensorrt-rtx"
    ):
        build_engine(quantized(residual(), "cpu"), SPEC, tmp_path / "net.plan", "tensorrt-rtx", TARGET)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("declared", ["zero point", "output_dtype"])
def test_signed_integers_are_known_however_they_are_declared(declared: str, tmp_path: Path) -> None:
    made = quantized(residual())
    for node in made.graph.node:
        if node.op_type == "QuantizeLinear" and declared == "output_dtype":
            del node.input[2]
            node.attribute.append(helper.make_attribute("output_dtype", TensorProto.INT8))
    refuse_unsigned(made, tmp_path / "net.plan", "tensorrt")
    assert profile_of(made) == "tensorrt"
    for node in made.graph.node:
        if node.op_type == "QuantizeLinear":
            del node.attribute[:]
            del node.input[2:]
    assert profile_of(made) == "cpu"
    with pytest.raises(RcompressError, match="is quantized to UINT8"):
        refuse_unsigned(made, tmp_path / "net.plan", "tensorrt")


@needs_rtx
def test_fixed_batch_and_own_range(tmp_path: Path) -> None:
    fixed = build_engine(residual(batch=2), SPEC, tmp_path / "fixed.plan", "tensorrt-rtx", TARGET)
    assert read_sidecar(fixed).batch_range == (2, 2, 2)
    options = BuildOptions(target="sm_89", batch_range=(1, 8, 32), workspace_bytes=2**26)
    assert read_sidecar(
        build_engine(residual(), SPEC, tmp_path / "free.plan", "tensorrt-rtx", options)
    ).batch_range == (1, 8, 32)


@needs_rtx
def test_the_second_plan_of_a_process_has_a_log_of_its_own(tmp_path: Path) -> None:
    for name, model in (("a.plan", quantized(residual())), ("b.plan", residual())):
        build_engine(model, SPEC, tmp_path / name, "tensorrt-rtx", TARGET)
    assert "QuantizeLinear" in log_path(tmp_path / "a.plan").read_text()
    assert "QuantizeLinear" not in log_path(tmp_path / "b.plan").read_text()


@needs_rtx
def test_flags_that_tensorrt_rtx_does_not_know_are_refused(tmp_path: Path) -> None:
    options = (
        BuildOptions(target="sm_86", timing_cache=tmp_path / "timings"),
        BuildOptions(target="sm_86", hardware_compatible=True),
    )
    for option in options:
        with pytest.raises(RcompressError, match="neither timing caches nor hardware compatibility"):
            build_engine(residual(), SPEC, tmp_path / "a.plan", "tensorrt-rtx", option)


@needs_rtx
def test_sparse_weights_are_a_flag_of_tensorrt_alone(tmp_path: Path) -> None:
    import tensorrt_rtx

    from rcompress.engines.trt import _config
    from rcompress.engines.trt_log import shared_logger

    with pytest.raises(RcompressError, match="same plan"):
        options = BuildOptions(target="sm_86", sparse_weights=True)
        build_engine(residual(), SPEC, tmp_path / "a.plan", "tensorrt-rtx", options)
    builder = tensorrt_rtx.Builder(shared_logger("tensorrt-rtx"))
    flag = tensorrt_rtx.BuilderFlag.SPARSE_WEIGHTS
    for wanted in (False, True):
        options = BuildOptions(target="sm_86", sparse_weights=wanted)
        config = _config(tensorrt_rtx, builder, options, tmp_path / "a.plan")
        assert config.get_flag(flag) == wanted
        assert not config.get_flag(tensorrt_rtx.BuilderFlag.TF32)


@needs_rtx
def test_unknown_gpu_and_operator_are_named(tmp_path: Path) -> None:
    from onnx import helper

    from tests.graphs import model

    with pytest.raises(RcompressError, match=r"no GPU is called sm_13; choose one of .*sm_86"):
        build_engine(residual(), SPEC, tmp_path / "a.plan", "tensorrt-rtx", BuildOptions(target="sm_13"))
    unknown = model([helper.make_node("Det", ["x"], ["y"])], [], ("batch", 3, 8, 8), ("batch", 3))
    with pytest.raises(RcompressError, match="cannot parse the graph"):
        build_engine(unknown, SPEC, tmp_path / "a.plan", "tensorrt-rtx", TARGET)


@needs_rtx
@needs_no_gpu
def test_without_a_gpu_building_needs_a_target_and_running_says_what_is_missing(plan: Path) -> None:
    with pytest.raises(RcompressError, match="--target sm_86"):
        build_engine(residual(), SPEC, plan, "tensorrt-rtx")
    with pytest.raises(RcompressError, match=r"tensorrt-rtx cannot run here: .*driver"):
        load_engine(plan)


@needs_rtx
def test_a_plan_is_not_run_on_the_cpu(plan: Path) -> None:
    with pytest.raises(RcompressError, match="runs on a GPU alone"):
        load_engine(plan, None, RunOptions("cpu"))


@pytest.mark.skipif(backend_status("tensorrt").version is not None, reason="tensorrt is installed")
def test_tensorrt_says_that_its_package_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RcompressError, match=r"not installed; pip install 'rcompress\[tensorrt\]'"):
        build_engine(residual(), SPEC, tmp_path / "net.plan", "tensorrt")


@needs_rtx
@pytest.mark.parametrize("damaged", ["plan", "sidecar"])
def test_truncated_plans_and_sidecars(plan: Path, damaged: str) -> None:
    path = plan if damaged == "plan" else sidecar_path(plan)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RcompressError, match="truncated"):
        load_engine(plan)


@needs_rtx
def test_missing_sidecar_and_wrong_backend(plan: Path) -> None:
    with pytest.raises(RcompressError, match="was built by tensorrt-rtx"):
        load_engine(plan, "tensorrt")
    sidecar_path(plan).unlink()
    with pytest.raises(RcompressError, match="is missing"):
        load_engine(plan)


@needs_rtx
def test_sidecar_of_a_foreign_graph_has_no_description(tmp_path: Path) -> None:
    path = build_engine(residual(), None, tmp_path / "net.plan", "tensorrt-rtx", TARGET)
    assert read_sidecar(path).spec is None
    assert json.loads(sidecar_path(path).read_text())["model"] is None


def test_layer_descriptions_of_both_builders_are_understood() -> None:
    rtx = "Name: c, LayerType: correlation, Inputs: [ { Name: i, Dimensions: [-1,4,8,8], Datatype: Int8, Format: x }]"
    classic = (
        "Name: c, LayerType: CaskConvolution, Inputs: [ { Name: i, Location: Device, Dimensions: [1,4,8,8], "
        "Format/Datatype: Thirty-two wide channel vectorized row major Int8 format }], Outputs: []"
    )
    other = "Name: k, LayerType: kgen, Inputs: [ { Name: i, Datatype: Float }]"
    full = "Name: g, LayerType: gemm, Inputs: [ { Name: i, Dimensions: [1,512], Datatype: Float, Format: x }]"
    assert executed_precisions([rtx, classic, other, full]) == {"I8": 2, "F32": 1}


@pytest.mark.gpu
@pytest.mark.skipif(not backend_status("tensorrt-rtx").usable, reason="TensorRT-RTX cannot run here")
def test_plan_runs_beside_pytorch(tmp_path: Path) -> None:
    path = build_engine(residual(), SPEC, tmp_path / "net.plan", "tensorrt-rtx")
    before = torch.ones(3, device="cuda")
    engine = load_engine(path)
    found = engine.run(images(5))
    engine.prepare(images(5))()
    assert (before * 2).sum().item() == 6
    engine.close()
    reference = build_engine(residual(), SPEC, tmp_path / "net.xml", "openvino")
    assert abs(found - load_engine(reference).run(images(5))).max() < 0.05
