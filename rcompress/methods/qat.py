"""Quantization-aware training of the graph that is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import nn

from rcompress.artifacts.spec import ModelSpec
from rcompress.data import Dataset
from rcompress.engines.graph_io import dtype_of, graph_input, shape_of
from rcompress.engines.torch_graph import TorchGraph
from rcompress.errors import RcompressError
from rcompress.measure.accuracy import Scores
from rcompress.methods.qat_graph import TrainableGraph, parameter, trainable_graph, written_back
from rcompress.methods.qat_scales import LearnedScales, ObservedScales
from rcompress.methods.weight_grid import Bits
from rcompress.progress import SILENT, Progress
from rcompress.training import Guidance, Outcome, Recipe, Settings, run_training
from rcompress.training.guidance import Loss, ParameterGroups
from rcompress.training.run import test_scores
from rcompress.training.teachers import Member, Teacher

Scales = Literal["lsq", "observed"]
LEARNING_RATES: dict[Bits, float] = {4: 3e-4, 8: 1e-4}  # 8-bit weights have less way to go
EPOCHS = 5


def qat_recipe(bits: Bits) -> Recipe:
    """The recipe for weights of so many bits: tests/benchmarks/DECISIONS.md.

    AdamW, because with BatchNorm folded one rate of SGD does not fit all layers: 1e-3 undid the network, and 1e-4
    learned half as much.
    """
    return Recipe(
        epochs=EPOCHS,
        optimizer="adamw",
        learning_rate=LEARNING_RATES[bits],
        weight_decay=1e-4,
        schedule="cosine",
        warmup=0.1,
        ema=0.99,
    )


@dataclass(frozen=True)
class QatOptions:
    """How a quantized graph is trained.

    Attributes:
        scales: ``lsq`` learns them; ``observed`` keeps the activations' and lets the weights' follow the weights.
        bias_rate, scale_rate: the share of the recipe's learning rate that biases and scales have.
    """

    scales: Scales = "lsq"
    bias_rate: float = 1.0
    scale_rate: float = 0.1


@dataclass(frozen=True)
class Trained:
    """A trained quantized graph.

    Attributes:
        model: the graph, ready to be written.
        outcome: the run; its module computes what ``model`` says.
        before: the scores of the graph as it was given, on the images of ``outcome.scores``.
    """

    model: onnx.ModelProto
    outcome: Outcome
    before: Scores


def train_quantized(
    quantized: onnx.ModelProto,
    original: onnx.ModelProto,
    spec: ModelSpec,
    dataset: Dataset,
    recipe: Recipe,
    options: QatOptions,
    settings: Settings,
    output: Path,
    origin: Mapping[str, Any],
    loss: Loss | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Trained:
    """Train ``quantized`` on ``dataset`` and write its integers, scales and biases anew.

    Args:
        quantized, original: see `qat_graph.trainable_graph`.
        spec: of the network.
        output: the file that the caller will write; the journal goes beside it.
        origin: primitives that say where ``quantized`` comes from; a run is resumed with the same alone.
        loss: None for cross-entropy.
        resume: go on where a killed run with the same options stood.

    Raises:
        RcompressError: the graph takes other inputs than training gives, or whatever stops a run.
    """
    require_trainable(quantized, spec)
    trainable = trainable_graph(quantized, original)
    trainable.module.to(settings.device)
    before = test_scores(trainable.module, spec, dataset, settings, chosen=recipe.epochs > 0)
    outcome = run_training(
        trainable.module,
        spec,
        dataset,
        recipe,
        settings,
        output,
        {**origin, **asdict(options)},
        resume,
        progress=progress,
        guidance=guidance(trainable, recipe, options, loss),
    )
    return Trained(written_back(trainable, outcome.module), outcome, before)


def parent_teacher(
    original: onnx.ModelProto, path: Path, sha256: str, spec: ModelSpec, settings: Settings
) -> Teacher:
    """The graph in floating point as a teacher of its quantized self.

    Args:
        original: the graph, with its BatchNorm folded.
        path, sha256: the file it came from, whatever that says of itself.
        spec: of the network, so that it is fed what the student is.
        settings: of the run.
    """
    graph = TorchGraph(original).eval().requires_grad_(False).to(settings.device)
    return Teacher([Member(path, sha256, spec, graph.to(memory_format=torch.channels_last))], spec, settings)


def guidance(
    trainable: TrainableGraph, recipe: Recipe, options: QatOptions, loss: Loss | None = None
) -> Guidance:
    """How training a quantized graph departs from plain training."""
    constraint = LearnedScales(trainable) if options.scales == "lsq" else ObservedScales(trainable)
    return Guidance(loss, (constraint,), parameter_groups(trainable, recipe, options))


def parameter_groups(trainable: TrainableGraph, recipe: Recipe, options: QatOptions) -> ParameterGroups:
    """Weights with decay; biases and scales without, each at a rate of their own."""
    scales = tuple(dict.fromkeys(quantizer.scale for quantizer in trainable.quantizers))

    def groups(module: nn.Module) -> list[dict[str, Any]]:
        def trained(names: tuple[str, ...]) -> list[nn.Parameter]:
            found = [parameter(module, name) for name in names]
            return [value for value in found if isinstance(value, nn.Parameter) and value.requires_grad]

        return [
            {"params": trained(trainable.weights), "weight_decay": recipe.weight_decay},
            {"params": trained(trainable.biases), "weight_decay": 0.0, "lr_scale": options.bias_rate},
            {"params": trained(scales), "weight_decay": 0.0, "lr_scale": options.scale_rate},
        ]

    return groups


def require_trainable(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Refuse graphs that the training loop cannot feed.

    Raises:
        RcompressError: the graph prepares its images itself, or has a batch size built in.
    """
    value = graph_input(model)
    if spec.preprocessing.in_graph or dtype_of(value) != "float32":
        raise RcompressError("--qat", "this graph normalises its images itself", "quantize one that does not")
    if shape_of(value)[0] is not None:
        raise RcompressError("--qat", "a batch size is built into this graph", "export it with a free one")
