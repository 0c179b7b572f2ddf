"""How a quantized graph is best trained: optimizer, rates, scales and number format, and what a step costs."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rcompress.artifacts.spec import ModelSpec
from rcompress.cli.output import print_table
from rcompress.data import Split, balanced_indices, input_batches
from rcompress.engines.torch_graph import TorchGraph
from rcompress.export import onnx_from_module
from rcompress.methods.placement import LayerBits
from rcompress.methods.qat import QatOptions, Scales, guidance, parent_teacher, qat_recipe
from rcompress.methods.qat_graph import trainable_graph
from rcompress.methods.quantize import QuantizeOptions, plan_quantization, quantize_onnx
from rcompress.methods.weight_grid import Bits
from rcompress.training import Material, Settings, Trainer
from rcompress.training.distillation import LogitDistillation
from rcompress.training.recipe import Optimizer
from tests.benchmarks.common import torch_threads
from tests.benchmarks.public import public_data, public_resnet32

TRAIN, TEST, CALIBRATION, BATCH = 5120, 2000, 256, 64


@dataclass(frozen=True)
class Way:
    """One way to train."""

    optimizer: Optimizer = "adamw"
    rate: float = 3e-4
    scales: Scales = "lsq"
    scale_rate: float = 0.1
    precision: str = "fp32"


WAYS: dict[Bits, tuple[Way, ...]] = {
    4: (
        Way("sgd", 1e-3),
        Way("sgd", 1e-4),
        Way(rate=1e-4),
        Way(),
        Way(precision="bf16"),
        Way(scale_rate=1.0),
        Way(scales="observed"),
    ),
    8: (Way(rate=1e-4), Way(rate=1e-4, precision="bf16"), Way(), Way(rate=1e-4, scales="observed")),
}


@dataclass(frozen=True)
class Bench:
    """A network, in floating point, and the images that it is trained with and judged by."""

    model: onnx.ModelProto
    spec: ModelSpec
    train: Split
    test: Split
    material: Material


def run(smoke: bool) -> None:
    """One table: the way to train down; how near the float network's logits and classes the result is across."""
    root = public_data("retraining")
    if root is None:
        return
    with tempfile.TemporaryDirectory() as folder, torch_threads(1):
        bench = _open(root, Path(folder), smoke)
        rows = [row for bits in WAYS for row in _rows(bench, bits, smoke)]
    title = f"ResNet-32 on CIFAR-10, one epoch of {len(bench.train)} images, held against itself in FP32"
    columns = ("bits", "training", "scales", "format", "CPU s/step", "logit MSE", "same class %", "top-1 %")
    print_table(title, columns, rows, left=4)


def _open(root: Path, folder: Path, smoke: bool) -> Bench:
    loaded, dataset = public_resnet32(root, folder)
    train, test = (dataset.split(name) for name in ("train", "test-a"))
    train = train.subset(balanced_indices(train.labels, 2 * BATCH if smoke else TRAIN, seed=0))
    test = test.subset(balanced_indices(test.labels, 50 if smoke else TEST, seed=0))
    material = Material(train, test, loaded.spec.preprocessing, dataset.augmentation)
    return Bench(onnx_from_module(loaded.module, loaded.spec), loaded.spec, train, test, material)


def _rows(bench: Bench, bits: Bits, smoke: bool) -> list[list[str]]:
    how = QuantizeOptions(bits=LayerBits(bits))
    original = plan_quantization(bench.model, how).model
    chosen = bench.train.subset(balanced_indices(bench.train.labels, CALIBRATION, seed=0))
    batches = [batch for batch, _ in input_batches(chosen, bench.spec.preprocessing, 32)]
    quantized = quantize_onnx(bench.model, batches, len(chosen), how).model
    expected = _logits(TorchGraph(original), bench)
    rows = [[str(bits), "none", "", "", "", *_cells(_logits(TorchGraph(quantized), bench), expected, bench)]]
    for way in WAYS[bits][:1] if smoke else WAYS[bits]:
        seconds, module = _trained(bench, original, quantized, way, bits)
        scales = f"{way.scales} x {way.scale_rate:g}" if way.scales == "lsq" else way.scales
        said = [str(bits), f"{way.optimizer} {way.rate:g}", scales, way.precision, f"{seconds:.2f}"]
        rows.append(said + _cells(_logits(module, bench), expected, bench))
    return rows


def _trained(
    bench: Bench, original: onnx.ModelProto, quantized: onnx.ModelProto, way: Way, bits: Bits
) -> tuple[float, nn.Module]:
    """CPU seconds of a step (with its share of the validation), and the network."""
    torch.manual_seed(0)
    settings = Settings(torch.device("cpu"), "bf16" if way.precision == "bf16" else "fp32")
    recipe = replace(
        qat_recipe(bits), epochs=1, batch_size=BATCH, optimizer=way.optimizer, learning_rate=way.rate
    )
    graph = trainable_graph(quantized, original)
    teacher = parent_teacher(original, Path("r32.pth"), "", bench.spec, settings)
    guided = guidance(
        graph, recipe, QatOptions(way.scales, scale_rate=way.scale_rate), LogitDistillation(teacher)
    )
    trainer = Trainer(graph.module, bench.material, recipe, settings, guided)
    began = time.process_time()
    trained = trainer.run(lambda _: None)
    return (time.process_time() - began) / trainer.steps_per_epoch, trained


@torch.inference_mode()
def _logits(module: nn.Module, bench: Bench) -> Tensor:
    batches = input_batches(bench.test, bench.spec.preprocessing, 200)
    return torch.cat([module(images) for images, _ in batches])


def _cells(found: Tensor, expected: Tensor, bench: Bench) -> list[str]:
    same = (found.argmax(1) == expected.argmax(1)).float().mean()
    right = (found.argmax(1) == bench.test.labels).float().mean()
    return [f"{F.mse_loss(found, expected):.4f}", f"{100 * same:.2f}", f"{100 * right:.2f}"]
