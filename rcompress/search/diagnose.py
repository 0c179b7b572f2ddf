"""Where two versions of a network part: layer by layer on real images, and what each layer alone costs."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rcompress.artifacts.files import write_atomic
from rcompress.artifacts.spec import ModelSpec
from rcompress.data import Split, balanced_indices, input_batches
from rcompress.engines import RunOptions, load_engine
from rcompress.engines.base import Array
from rcompress.engines.evaluation import engine_logits
from rcompress.errors import RcompressError
from rcompress.measure.paired import Paired, paired
from rcompress.progress import SILENT, Progress
from rcompress.search.diagnosis import Diagnosis, LayerReport
from rcompress.search.diagnosis_sides import Side, require_comparable
from rcompress.search.inner_tensors import Distance, GraphProbe
from rcompress.search.layer_swap import (
    Layer,
    in_equal_opsets,
    match_layers,
    same_widths,
    with_layer,
    with_side_branches,
)

TENSOR_IMAGES, TENSOR_BATCH, ACCURACY_BATCH = 256, 32, 64
IMAGE_SEED = 0


@dataclass(frozen=True)
class DiagnoseOptions:
    """How to compare.

    Attributes:
        images: on which accuracy is compared, at most; inner tensors are compared on the first 256 of them.
        part_below_db: signal-to-noise ratio under which two tensors have parted: at 10 dB a tenth of the power is
            noise.
        run: device and threads of the engines, the user's own architecture.
    """

    images: int = 1000
    part_below_db: float = 10.0
    run: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True)
class _Answers:
    """Which images a network gets right, bool (N,), and its mean cross entropy."""

    correct: NDArray[np.bool_]
    loss: float


def diagnose(
    first: Side, second: Side, split: Split, options: DiagnoseOptions, progress: Progress = SILENT
) -> Diagnosis:
    """Compare ``second`` with ``first``, both of one lineage, on real images.

    Args:
        first, second: see `open_side`; ``first`` is the reference.
        split: images and labels on which choices may be made for this network.

    Raises:
        RcompressError: they cannot be compared (see `require_comparable`), or one of them cannot be run.
    """
    spec = require_comparable(first, second)
    chosen = split.subset(balanced_indices(split.labels, min(options.images, len(split)), IMAGE_SEED))
    first, second = _in_equal_opsets(first, second)
    layers, notes = _layers(first, second)
    images = _inputs(first, second, chosen, spec)
    far, own = _distances(first, second, layers, images, progress)
    notes += _hidden(layers, far)
    reference, other = (
        _file_answers(side.path, chosen, spec, options.run, progress) for side in (first, second)
    )
    costs = _costs(first, layers, chosen, spec, options.run, progress)
    return Diagnosis(
        layers=tuple(_report(layer, far, own, costs) for layer in layers),
        output=LayerReport("logits", "output", "logits", far.get(first.output)),
        whole=paired(other.correct, reference.correct),
        top1_percent=(100.0 * float(reference.correct.mean()), 100.0 * float(other.correct.mean())),
        part_below_db=options.part_below_db,
        notes=tuple(notes),
        context={"images": len(chosen), "tensor_images": sum(len(batch) for batch in images)},
    )


def _in_equal_opsets(first: Side, second: Side) -> tuple[Side, Side]:
    if first.graph is None or second.graph is None:
        return first, second
    mine, theirs = in_equal_opsets(first.graph, second.graph)
    return replace(first, graph=mine), replace(second, graph=theirs)


def _layers(first: Side, second: Side) -> tuple[list[Layer], list[str]]:
    """The layers to compare, as the first graph (or the only one) has them, and what cannot be compared."""
    graph = first.graph or second.graph
    if graph is None:
        return [], ["neither file shows its inner tensors: the outputs alone are compared"]
    if first.graph is None or second.graph is None:
        engine = first if first.graph is None else second
        return match_layers(graph, graph), [
            f"{engine.path.name} is an engine: what each layer alone costs is measured on graphs, so give the "
            ".onnx that it was built from"
        ]
    if not same_widths(first.graph, second.graph):
        return [], ["the layers have other widths: the outputs alone are compared"]
    layers = match_layers(first.graph, second.graph)
    if not layers:
        return [], ["no layer of one graph is found in the other: the outputs alone are compared"]
    return layers, [] if any(layer.swap for layer in layers) else ["no layer of B differs from that of A"]


def _inputs(first: Side, second: Side, split: Split, spec: ModelSpec) -> list[Array]:
    """The first images as batches that both sides take."""
    fixed = first.input_shape[0] or second.input_shape[0]
    size = fixed or TENSOR_BATCH
    some = split.subset(torch.arange(min(TENSOR_IMAGES, len(split))))
    batches = [images.numpy() for images, _ in input_batches(some, spec.preprocessing, size)]
    whole = [batch for batch in batches if fixed is None or len(batch) == fixed]
    if not whole:
        raise RcompressError(first.path, f"needs {fixed} images at once", "give more with --images")
    return whole


def _distances(
    first: Side, second: Side, layers: Sequence[Layer], batches: Sequence[Array], progress: Progress
) -> tuple[dict[str, Distance], dict[str, Distance]]:
    """By the first side's tensor names: how far the second side's lie, and those of each swap alone.

    What has other widths in the second side is passed over.
    """
    pairs = {layer.output: layer.twin_output for layer in layers}
    pairs = {
        mine: theirs
        for mine, theirs in pairs.items()
        if first.probe.shows(mine) and second.probe.shows(theirs)
    }
    pairs[first.output] = second.output
    swaps = {layer.output: layer.swap.result for layer in layers if layer.swap is not None}
    probe = first.probe
    if swaps and first.graph is not None:
        probe = GraphProbe(with_side_branches(first.graph, layers), str(first.path))
    far: dict[str, Distance] = defaultdict(Distance)
    own: dict[str, Distance] = defaultdict(Distance)
    progress.start("comparing tensors", len(batches))
    for images in batches:
        mine = probe.run(images, [*pairs, *swaps, *swaps.values()])
        theirs = second.probe.run(images, list(pairs.values()))
        for name, twin in pairs.items():
            if mine[name].shape == theirs[twin].shape:
                far[name].add(mine[name], theirs[twin])
        for name, swapped in swaps.items():
            own[name].add(mine[name], mine[swapped])
        progress.advance()
    return dict(far), dict(own)


def _hidden(layers: Sequence[Layer], far: Mapping[str, Distance]) -> list[str]:
    hidden = [layer.name for layer in layers if layer.output not in far]
    if not hidden:
        return []
    return [
        f"{len(hidden)} of {len(layers)} layers' outputs are not compared: the engine does not show them, or has "
        f"other widths there ({', '.join(hidden[:3])}, ...)"
    ]


def _costs(
    first: Side, layers: Sequence[Layer], split: Split, spec: ModelSpec, run: RunOptions, progress: Progress
) -> dict[str, tuple[Paired, float]]:
    """Per swapped layer: accuracy and added loss of the first graph with that layer alone swapped.

    These graphs run in ONNX Runtime, the unswapped one for comparison too.
    """
    swapped = [layer for layer in layers if layer.swap is not None]
    if first.graph is None or not swapped:
        return {}
    on_cpu = replace(run, device="cpu")
    costs = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "swapped.onnx"

        def answers(model: onnx.ModelProto) -> _Answers:
            write_atomic(path, model.SerializeToString())
            return _file_answers(path, split, spec, on_cpu, SILENT)

        reference = answers(first.graph)
        progress.start("swapping layers one at a time", len(swapped))
        for layer in swapped:
            found = answers(with_layer(first.graph, layer))
            costs[layer.output] = paired(found.correct, reference.correct), found.loss - reference.loss
            progress.advance()
    return costs


def _file_answers(path: Path, split: Split, spec: ModelSpec, run: RunOptions, progress: Progress) -> _Answers:
    with closing(load_engine(path, None, run)) as engine:
        logits, labels = engine_logits(engine, split, spec.preprocessing, ACCURACY_BATCH, progress)
    scores = torch.from_numpy(np.asarray(logits))
    return _Answers((scores.argmax(1) == labels).numpy(), float(F.cross_entropy(scores, labels)))


def _report(
    layer: Layer,
    far: Mapping[str, Distance],
    own: Mapping[str, Distance],
    costs: Mapping[str, tuple[Paired, float]],
) -> LayerReport:
    cost, added = costs.get(layer.output, (None, None))
    return LayerReport(
        layer=layer.name,
        operator=layer.operator,
        stage=layer.stage,
        distance=far.get(layer.output),
        own=own.get(layer.output),
        cost=cost,
        loss_increase=added,
    )
