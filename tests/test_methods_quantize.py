"""Quantization on the graph: where Q/DQ stands, how it is calibrated, and what the engines make of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from rcompress.engines import RunOptions, build_engine, load_engine
from rcompress.engines.graph_io import graph_input, opset_of, shape_of
from rcompress.engines.torch_graph import TorchGraph
from rcompress.errors import RcompressError
from rcompress.methods.calibration import Range
from rcompress.methods.calibration_cache import (
    CalibrationCache,
    graph_hash,
    ranges_for,
    read_cache,
    write_cache,
)
from rcompress.methods.graph_prepare import prepare_graph
from rcompress.methods.lower_precision import lower_precision
from rcompress.methods.placement import LayerBits, place
from rcompress.methods.quantize import (
    QuantizeOptions,
    calibrate,
    plan_quantization,
    quantize_onnx,
    quantize_planned,
    rebatched,
)
from rcompress.methods.weight_grid import WeightGrid
from tests.graphs import SPEC, images, model, residual, resnet, tensors


def batches(count: int = 64, size: int = 16) -> list[torch.Tensor]:
    return list(torch.from_numpy(images(count)).split(size))


def quantized(made: onnx.ModelProto, **options: object) -> onnx.ModelProto:
    return quantize_onnx(made, batches(), 64, QuantizeOptions(**options)).model


def constant(made: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in made.graph.initializer if t.name == name))


def run(made: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return TorchGraph(made)(torch.from_numpy(x)).numpy()


# Placement


def test_cpu_profile_is_unsigned_after_relu_and_quantizes_both_inputs_of_the_add() -> None:
    found = place(residual(), "cpu")
    assert found.activations == {"x": "int8", "r1": "uint8", "c2": "int8", "f": "uint8"}
    assert (found.convolutions, found.matrices) == (2, 1)


def test_tensorrt_profile_is_signed_and_quantizes_the_shortcut_alone() -> None:
    assert place(residual(), "tensorrt").activations == {"x": "int8", "r1": "int8", "f": "int8"}


def test_zero_points_follow_the_profile() -> None:
    for profile, kinds in (("cpu", {np.int8, np.uint8}), ("tensorrt", {np.int8})):
        made = quantized(residual(), profile=profile)
        zeros = [constant(made, t.name) for t in made.graph.initializer if t.name.endswith("_zero_point")]
        assert {zero.dtype.type for zero in zeros} == kinds
        assert all((zero == 0).all() for zero in zeros)


def test_signed_tensors_with_several_readers_are_centred_for_onnxruntime(tmp_path: Path) -> None:
    """Linear bottlenecks, as in mobilenet_v2: a convolution's signed output is read by the next one and an add."""
    w = np.random.default_rng(0).standard_normal((3, 3, 1, 1)) * 0.5
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"]),
        helper.make_node("Conv", ["a", "w2"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Conv", ["c", "w3"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    made = model(nodes, tensors(w1=w, w2=w * 0.7, w3=w * 0.3), output=("batch", 3))
    assert place(made, "cpu").activations["a"] == "uint8-centred"
    graph = quantized(made)
    assert constant(graph, "a_zero_point") == 128
    path = build_engine(graph, None, tmp_path / "q.onnx", "onnxruntime")
    assert load_engine(path, None, RunOptions(threads=1)).info.executed == {"I8": 3}


def test_pooling_shares_the_range_of_its_input() -> None:
    w = np.ones((3, 3, 1, 1)) * 0.3
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["c", "w"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    graph = quantized(model(nodes, tensors(w=w), output=("batch", 3)), method="mse")
    assert constant(graph, "b_scale") == constant(graph, "c_scale")


# Weights


def test_a_products_channels_are_its_columns() -> None:
    weight = np.linspace(-1, 1, 768).reshape(192, 4) * [1.0, 10.0, 0.1, 5.0]
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"], "fc"),
    ]
    found = constant(quantized(model(nodes, tensors(w=weight))), "w_scale")
    np.testing.assert_allclose(found, np.abs(weight).max(0) / 127, rtol=1e-6)


def test_activations_use_all_levels_of_their_type() -> None:
    found = quantize_onnx(residual(), batches(), 64)
    for name, levels in {"x": 127, "r1": 255, "c2": 127, "f": 255}.items():
        expected = found.ranges[name].threshold / levels
        assert constant(found.model, f"{name}_scale") == pytest.approx(expected), name


def test_weight_scales_per_channel_and_per_tensor() -> None:
    values = np.array([[1.27, -0.5], [0.0, 0.0], [-2.54, 1.0]], np.float32)
    none = np.zeros(3, np.float32)
    grid = WeightGrid(8, axis=0)
    np.testing.assert_allclose(grid.scales(values, none), [0.01, 1.0, 0.02], rtol=1e-6)
    np.testing.assert_allclose(WeightGrid(8, 0, per_channel=False).scales(values, none), 0.02, rtol=1e-6)
    steps = grid.steps(values, grid.scales(values, none))
    assert steps.dtype == np.int8 and steps.tolist() == [[127, -50], [0, 0], [-127, 50]]


def test_nearly_dead_channels_keep_their_bias(tmp_path: Path) -> None:
    """A tiny scale would overflow the INT32 bias of ONNX Runtime."""
    made = residual()
    w, b = constant(made, "w1").copy(), constant(made, "b1").copy()
    w[0] *= 1e-12
    b[0] = 3.0
    for tensor in made.graph.initializer:
        if tensor.name in ("w1", "b1"):
            tensor.CopyFrom(numpy_helper.from_array(w if tensor.name == "w1" else b, tensor.name))
    graph = quantized(made)
    path = build_engine(graph, SPEC, tmp_path / "q.onnx", "onnxruntime")
    x = images(20)
    expected = run(made, x)
    found = load_engine(path, None, RunOptions(threads=1)).run(x)
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def test_weights_are_stored_in_one_byte_and_biases_in_fp32() -> None:
    graph = quantized(residual())
    assert constant(graph, "w2_quantized").dtype == np.int8
    assert constant(graph, "w2_scale").shape == (8,) and constant(graph, "b2").dtype == np.float32
    assert "w2" not in {tensor.name for tensor in graph.graph.initializer}
    assert constant(quantized(residual(), per_channel=False), "w2_scale").shape == ()


def test_calibration_holds_no_batches() -> None:
    """Memory does not grow with the number of images: at most a batch and its successor are alive."""
    import weakref

    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def stream() -> Iterator[torch.Tensor]:
        nonlocal most
        for seed in range(12):
            batch = torch.from_numpy(images(4, seed))
            alive.append(weakref.ref(batch))
            most = max(most, sum(ref() is not None for ref in alive))
            yield batch

    _, seen = calibrate(plan_quantization(residual(), QuantizeOptions(method="mse")), stream(), 48)
    assert seen == 48 and most <= 3


# Whole graphs


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse", "moving-average"])
@pytest.mark.parametrize("profile", ["cpu", "tensorrt"])
def test_every_method_keeps_the_logits(method: str, profile: str) -> None:
    x = images(100, seed=9)
    expected = run(residual(), x)
    found = run(quantized(residual(), method=method, profile=profile), x)
    assert np.abs(found - expected).mean() < 0.03 * np.abs(expected).mean() + 0.02


@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
def test_every_convolution_of_our_networks_runs_in_int8(tmp_path: Path, name: str) -> None:
    made, spec = resnet(name, **({"stem": "cifar"} if name == "resnet18" else {"shortcut": "pad"}))
    x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    result = quantize_onnx(made, [x], 8)
    assert result.report.convolutions == result.report.all_convolutions
    for backend, file in (("openvino", "q.xml"), ("onnxruntime", "q.onnx")):
        path = build_engine(result.model, spec, tmp_path / file, backend)
        executed = load_engine(path, None, RunOptions(threads=1)).info.executed
        assert executed["I8"] >= result.report.convolutions, (backend, executed)


def test_old_opset_and_fixed_batch_are_lifted() -> None:
    made = residual(batch=1, opset=9)
    prepared = prepare_graph(made)
    assert opset_of(prepared) >= 13 and shape_of(graph_input(prepared))[0] is None
    x = images(3)
    np.testing.assert_allclose(
        run(prepared, x), np.concatenate([run(made, x[i : i + 1]) for i in range(3)]), atol=1e-5
    )


def test_a_batch_that_is_built_in_stays_and_calibrates() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Transpose", ["m"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["t", "mix"], ["u"]),  # mixes the two images of a batch
        helper.make_node("Transpose", ["u"], ["y"], perm=[1, 0]),
    ]
    constants = tensors(
        flat=np.array([2, -1]),
        w=np.linspace(-1, 1, 192 * 4).reshape(192, 4),
        mix=np.array([[1.0, 0.5], [0.2, 1.0]]),
    )
    made = model(nodes, constants, (2, 3, 8, 8), (2, 4))
    result = quantize_onnx(made, [torch.from_numpy(images(5))], 5)
    assert result.report.fixed_batch == 2 and result.report.matrices == 2


def test_a_batch_built_in_takes_images_of_several_batches() -> None:
    given = torch.arange(10.0).view(10, 1).split(4)  # 4, 4, 2
    assert [part.flatten().tolist() for part in rebatched(given, 3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert [len(part) for part in rebatched(given, 8)] == [8]
    assert [len(part) for part in rebatched(given, 2)] == [2] * 5
    assert list(rebatched(given, 11)) == []


def test_batchnorm_is_folded() -> None:
    made = residual()
    made.graph.node[1].input[0] = "n"
    node = helper.make_node("BatchNormalization", ["c1", "s", "b", "m", "v"], ["n"], "bn")
    made.graph.node.insert(1, node)
    random = np.random.default_rng(0)
    made.graph.initializer.extend(
        tensors(s=random.random(8), b=random.random(8), m=random.random(8), v=random.random(8) + 0.5)
    )
    prepared = prepare_graph(made)
    assert "BatchNormalization" not in {node.op_type for node in prepared.graph.node}
    np.testing.assert_allclose(run(prepared, images(2)), run(made, images(2)), atol=1e-5)


def test_what_cannot_be_quantized_is_refused() -> None:
    with pytest.raises(RcompressError, match="is quantized already"):
        quantized(quantized(residual()))
    with pytest.raises(RcompressError, match="half-precision"):
        quantized(lower_precision(residual(), "fp16"))
    with pytest.raises(RcompressError, match="no convolution or matrix product"):
        quantized(model([helper.make_node("Relu", ["x"], ["y"])], [], output=("batch", 3, 8, 8)))
    with pytest.raises(RcompressError, match="saw no images"):
        quantize_onnx(residual(), [], 0)
    with pytest.raises(RcompressError, match="no pair of layers to equalize"):
        plan_quantization(residual(), QuantizeOptions(equalize=True))
    with pytest.raises(RcompressError, match="is not finite"):
        quantize_onnx(residual(), [torch.full((1, 3, 8, 8), float("nan"))], 1)


@pytest.mark.parametrize("name", ["w2", "b2"])
def test_broken_weights_are_refused_before_anything_is_rounded(name: str) -> None:
    made = residual()
    tensor = next(tensor for tensor in made.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    with pytest.raises(RcompressError, match=f"net.onnx: {name} holds values that are not finite"):
        plan_quantization(made, QuantizeOptions(bits=LayerBits(activations=False)), "net.onnx")


def test_foreign_file_is_quantized(test_data: Path, tmp_path: Path) -> None:
    made = onnx.load(test_data / "models" / "vnncomp2021" / "resnet_2b.onnx")
    x = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    result = quantize_onnx(made, [x], 16)
    assert result.report.convolutions == 6 and result.report.fixed_batch is None
    path = build_engine(result.model, None, tmp_path / "f.xml", "openvino")
    assert load_engine(path, None, RunOptions(threads=1)).info.executed == {"I8": 8}


# Half precision


@pytest.mark.parametrize(
    ("precision", "kind"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)]
)
def test_lower_precision_keeps_input_and_output(precision: str, kind: int) -> None:
    low = lower_precision(residual(), precision)
    assert {tensor.data_type for tensor in low.graph.initializer} == {kind}
    ends = (low.graph.input[0], low.graph.output[0])
    assert all(end.type.tensor_type.elem_type == TensorProto.FLOAT for end in ends)
    expected = run(residual(), images(8))
    found = run(low, images(8))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def test_fp16_refuses_what_it_cannot_hold() -> None:
    made = residual()
    made.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.full(8, 1e6, np.float32), "b1"))
    with pytest.raises(RcompressError, match="b1 is too large for FP16; use --bf16"):
        lower_precision(made, "fp16")


# The cache


def test_cache_makes_the_same_graph_again(tmp_path: Path) -> None:
    plan = plan_quantization(residual())
    ranges, seen = calibrate(plan, batches(), 64)
    cache = CalibrationCache("digits", seen, "minmax", "cpu", graph_hash(plan.model), ranges)
    path = write_cache(tmp_path / "net.calib.json", cache)
    back = read_cache(path)
    assert back == cache
    again = quantize_planned(plan, ranges_for(back, plan.placement.activations, path)).model
    assert again == quantize_planned(plan, ranges).model
    shown = json.loads(path.read_text())
    assert shown["ranges"]["r1"]["minimum"] == 0.0 and shown["images"] == 64


def test_cache_of_another_graph_is_refused(tmp_path: Path) -> None:
    cache = CalibrationCache("digits", 1, "minmax", "cpu", "0" * 64, {"x": Range(0.0, 1.0, 1.0)})
    with pytest.raises(RcompressError, match="has no range for 3 tensors"):
        ranges_for(cache, place(residual(), "cpu").activations, "net.calib.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": "other"}',
        '{"format": "rcompress-calib/1", "ranges": {"x": {"threshold": -1}}}',
    ],
)
def test_damaged_caches_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.calib.json"
    path.write_text(text)
    with pytest.raises(RcompressError):
        read_cache(path)
