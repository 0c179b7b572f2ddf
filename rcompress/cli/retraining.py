"""The options of quantization-aware training, and the run that they ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rcompress.cli.output import Output

if TYPE_CHECKING:
    from onnx import ModelProto

    from rcompress.artifacts.spec import ModelSpec, Preprocessing
    from rcompress.data import Dataset
    from rcompress.methods.qat import Trained
    from rcompress.methods.quantize import QuantizedGraph, QuantizeOptions
    from rcompress.methods.source_graph import SourceGraph
    from rcompress.methods.weight_grid import Bits
    from rcompress.training import Recipe, Settings
    from rcompress.training.guidance import Loss
    from rcompress.training.settings import PrecisionChoice

Qat = Annotated[bool, typer.Option("--qat", help="Then train the graph that is written.")]
QatEpochs = Annotated[int | None, typer.Option("--epochs", min=1, help="Of --qat (5).")]
QatLearningRate = Annotated[
    float | None,
    typer.Option("--learning-rate", "--lr", min=0, help="Peak rate of --qat (1e-4; 4 bits: 3e-4)."),
]
QatBatchSize = Annotated[int | None, typer.Option("--batch-size", "-b", min=1, help="Of --qat (128).")]
QatScales = Annotated[
    Literal["lsq", "observed"] | None,
    typer.Option("--scales", help="Of --qat: lsq learns them (default), observed follows the weights."),
]


@dataclass(frozen=True)
class Retraining:
    """As given on the command line.

    Raises:
        BadParameter: something is said of a training that was not asked for.
    """

    asked: bool
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    scales: Literal["lsq", "observed"] | None = None
    resume: bool = False
    teachers: Sequence[Path] | None = None
    distill: bool = True
    temperature: float | None = None
    alpha: float | None = None

    def __post_init__(self) -> None:
        said = (self.epochs, self.learning_rate, self.batch_size, self.scales, self.teachers)
        softness = (self.temperature, self.alpha)
        if not self.asked and (self.resume or any(value is not None for value in (*said, *softness))):
            raise typer.BadParameter("these options go with --qat", param_hint="--qat")

    def recipe(self, bits: Bits) -> Recipe:
        """The recipe for weights of so many bits, with what was given."""
        from rcompress.methods.qat import qat_recipe

        return qat_recipe(bits).changed(
            epochs=self.epochs, learning_rate=self.learning_rate, batch_size=self.batch_size
        )


@dataclass(frozen=True)
class Retrained:
    """A trained graph, what its lineage says of the training, and the data that it is held against."""

    trained: Trained
    details: dict[str, Any]
    dataset: Dataset
    preprocessing: Preprocessing

    @property
    def metrics(self) -> dict[str, Any]:
        """Scores after, and the accuracy before."""
        before = self.trained.before
        return {**self.trained.outcome.metrics, "untrained_top1_percent": before.top1_percent}


@dataclass(frozen=True)
class Place:
    """Where a training takes place: the file to be written, and the options of these names."""

    target: Path
    dataset: str | None
    data_dir: Path | None
    device: str
    threads: int
    precision: PrecisionChoice
    seed: int
    arch: str | None


def training(
    asked: Retraining, place: Place, graph: SourceGraph, spec: ModelSpec, how: QuantizeOptions, out: Output
) -> Callable[[QuantizedGraph, dict[str, Any]], Retrained]:
    """The training of a quantized graph, given that and what its lineage says of it.

    Raises:
        RcompressError: no dataset is known, or it contradicts the network; a teacher does not fit.
    """
    from rcompress.cli.session import open_settings
    from rcompress.data import matching_dataset
    from rcompress.methods.quantize import plan_quantization

    dataset = matching_dataset(graph.path, spec, place.dataset, place.data_dir)
    settings = open_settings(place.device, place.threads, place.precision, seed=place.seed)
    original = plan_quantization(graph.model, how, str(graph.path)).model
    loss = _loss(asked, graph, spec, original, settings, place.arch)
    return partial(_train, asked, place.target, graph, spec, how, original, dataset, settings, loss, out)


def _train(
    asked: Retraining,
    target: Path,
    graph: SourceGraph,
    spec: ModelSpec,
    how: QuantizeOptions,
    original: ModelProto,
    dataset: Dataset,
    settings: Settings,
    loss: Loss | None,
    out: Output,
    quantized: QuantizedGraph,
    record: dict[str, Any],
) -> Retrained:
    from rcompress.artifacts.spec import parent_fields
    from rcompress.cli.session import resumable, say_scores
    from rcompress.methods.qat import QatOptions, train_quantized

    options, recipe = QatOptions(asked.scales or "lsq"), asked.recipe(how.bits.weights)
    origin = {**parent_fields(graph.path, graph.sha256), **record}
    with resumable(out, target):
        trained = train_quantized(
            quantized.model,
            original,
            spec,
            dataset,
            recipe,
            options,
            settings,
            target,
            origin,
            loss,
            asked.resume,
            out,
        )
    say_scores(out, trained.outcome)
    _say_gain(trained, out)
    details = {"qat": {**asdict(options), **asdict(recipe), "precision": settings.precision}}
    if loss is not None:
        details["distillation"] = loss.identity()
    return Retrained(trained, details, dataset, spec.preprocessing)


def _loss(
    asked: Retraining,
    graph: SourceGraph,
    spec: ModelSpec,
    original: ModelProto,
    settings: Settings,
    arch: str | None,
) -> Loss | None:
    """Learning from the teachers named, by default from the graph before it was quantized."""
    from rcompress.cli.session import distilled
    from rcompress.methods.qat import parent_teacher
    from rcompress.training.distillation import ALPHA, TEMPERATURE, LogitDistillation

    if asked.teachers or not asked.distill:
        return distilled(spec, settings, asked.teachers, asked.temperature, asked.alpha, None, arch)
    return LogitDistillation(
        parent_teacher(original, graph.path, graph.sha256, spec, settings),
        TEMPERATURE if asked.temperature is None else asked.temperature,
        ALPHA if asked.alpha is None else asked.alpha,
    )


def _say_gain(trained: Trained, out: Output) -> None:
    before, after = trained.before.top1_percent, trained.outcome.scores.top1_percent
    text = f"top-1 {before:.2f} -> {after:.2f} % by training ({after - before:+.2f} points, same images)"
    out.note(text if after >= before else f"warning: {text}: leave --qat out, or train longer")


def finished(target: Path, retrained: Retrained, out: Output) -> dict[str, Any]:
    """The file is written: the state to resume from goes, and the whole test split is shown to file and network."""
    from rcompress.methods.agreement import agreements
    from rcompress.training.journal import Journal

    Journal.discard(target)
    module, split = retrained.trained.outcome.module, retrained.dataset.split("test")
    found = agreements(target, module, split, retrained.preprocessing, out)
    for agreement in found:
        out.note(agreement.sentence())
    return {"metrics": retrained.metrics, "agreement": [agreement.to_dict() for agreement in found]}
