"""Layers that are spared: what skipping means in the engines, and which layers are chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.data import MemorySource, Split
from rcompress.engines import RunOptions, build_engine, load_engine
from rcompress.engines.torch_graph import TorchGraph
from rcompress.errors import RcompressError
from rcompress.methods.calibration_data import CalibrationImages
from rcompress.methods.mixed_precision import _fewest, sensitivities, within_drop
from rcompress.methods.placement import LayerBits, place
from rcompress.methods.quantize import QuantizeOptions, calibrate, plan_quantization, quantize_onnx
from tests.graphs import images, residual

PIXELS = torch.randint(256, (400, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SPEC = ModelSpec(4, Preprocessing((3, 8, 8), (0.5,) * 3, (0.25,) * 3))


def network(fragile: bool = False) -> onnx.ModelProto:
    """A classifier whose four classes are all met; ``fragile``: in conv2, weights of an input channel that is always
    zero are so large that 4 bits have no steps left for the others."""
    made = residual()
    values = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in made.graph.initializer}
    values["w1"][0], values["b1"][0] = 0.0, -1.0
    if fragile:
        values["w2"][:, 0] = 4.0
    _store(made, values)
    with torch.inference_mode():
        values["b3"] -= TorchGraph(made)(inputs(PIXELS)).mean(0).numpy()
    _store(made, values)
    return made


def _store(made: onnx.ModelProto, values: dict[str, np.ndarray]) -> None:
    for tensor in made.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))


def inputs(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels / 255 - 0.5) / 0.25


def calibration(made: onnx.ModelProto) -> CalibrationImages:
    """Random images with the labels that the float graph gives them: it is always right."""
    with torch.inference_mode():
        labels = TorchGraph(made)(inputs(PIXELS)).argmax(1)
    split = Split(MemorySource(PIXELS, labels), torch.arange(len(PIXELS)))
    return CalibrationImages("made", split, SPEC)


def test_a_skipped_layer_reads_and_computes_floats(tmp_path: Path) -> None:
    options = QuantizeOptions(bits=LayerBits(skip=("conv2",)))
    result = quantize_onnx(residual(), [torch.from_numpy(images(16))], 16, options)
    assert (result.report.convolutions, result.report.all_convolutions) == (1, 2)
    node = next(node for node in result.model.graph.node if node.name == "conv2")
    assert node.input[:2] == ["r1", "w2"]
    for backend, name in (("onnxruntime", "q.onnx"), ("openvino", "q.xml")):
        path = build_engine(result.model, None, tmp_path / name, backend)
        assert load_engine(path, backend, RunOptions(threads=1)).info.executed["F32"] >= 1


def test_an_add_of_skipped_layers_stays_as_it_is() -> None:
    everything = place(residual(), "cpu").activations
    assert {"c2", "r1"} <= set(everything)
    spared = place(residual(), "cpu", LayerBits(skip=("conv2",)))
    assert "c2" not in spared.activations and "r1" in spared.activations  # the latter for conv1's sake
    assert set(place(residual(), "cpu", LayerBits(skip=("conv1", "conv2"))).activations) == {"f"}


def test_wide_layers_keep_eight_bits() -> None:
    bits = LayerBits(4, wide=("conv1",))
    assert [weight.bits for weight in place(residual(), "cpu", bits).weights] == [8, 4, 4]


def test_a_wrong_name_lists_near_ones() -> None:
    with pytest.raises(RcompressError, match=r"has no layer 'conv3'; name one as in conv"):
        plan_quantization(residual(), QuantizeOptions(bits=LayerBits(skip=("conv3",))))


def test_the_fragile_layer_is_the_most_sensitive() -> None:
    made = network(fragile=True)
    given = calibration(made)
    plan = plan_quantization(made, QuantizeOptions(bits=LayerBits(4)))
    ranges, _ = calibrate(plan, given.batches(), len(given))
    found = sensitivities(plan, ranges, given)
    assert found[0][0] == "conv2" and len(found) == 3
    assert found[0][1] > 3 * found[1][1]


def test_the_fragile_layer_is_spared_and_accuracy_holds() -> None:
    made = network(fragile=True)
    given = calibration(made)
    found = within_drop(made, given, given.split, 30.0, QuantizeOptions(bits=LayerBits(4)))
    assert found.layers == ("conv2",) and found.options.bits.wide == ("conv2",)
    assert found.float_percent == 100.0 and found.percent >= 70.0


def test_nothing_is_spared_without_need_and_too_much_is_refused() -> None:
    given = calibration(network())
    assert within_drop(network(), given, given.split, 20.0, QuantizeOptions()).layers == ()
    with pytest.raises(RcompressError, match=r"loses .* points even with every layer spared"):
        within_drop(network(), given, given.split, -1.0, QuantizeOptions(bits=LayerBits(4)))
    made = network(fragile=True)
    given = calibration(made)
    with pytest.raises(RcompressError, match="unless every layer stays in FP32"):
        within_drop(made, given, given.split, 0.0, QuantizeOptions(per_channel=False))


@pytest.mark.parametrize("needed", range(8))
def test_bisection_finds_the_fewest(needed: int) -> None:
    tried: list[int] = []

    def percent(count: int) -> float:
        tried.append(count)
        return 90.0 if count >= needed else 80.0

    assert _fewest(percent, 7, 90.0) == (needed, 90.0)
    assert len(tried) == len(set(tried)) <= 5
