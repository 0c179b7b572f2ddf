"""What quantization and engine building start from: a checkpoint or ONNX file as a described graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from rcompress.artifacts.onnx_file import read_onnx
from rcompress.artifacts.spec import ModelSpec, Preprocessing, SpecError, Step
from rcompress.engines.graph_io import graph_input, shape_of
from rcompress.errors import RcompressError
from rcompress.export import onnx_from_module
from rcompress.methods.graph_prepare import with_free_batch
from rcompress.models import load_model


@dataclass(frozen=True)
class SourceGraph:
    """A graph, the file it came from, and what that file says of it (None: nothing)."""

    path: Path
    model: onnx.ModelProto
    spec: ModelSpec | None
    sha256: str


def open_graph(path: Path, arch: str | None = None) -> SourceGraph:
    """Read an .onnx, or export a .pth.

    Raises:
        RcompressError: it is neither, or cannot be read, rebuilt or exported.
    """
    if path.suffix == ".onnx":
        found = read_onnx(path)
        return SourceGraph(path, found.model, found.spec, found.sha256)
    if path.suffix != ".pth":
        raise RcompressError(path, "is neither .onnx nor .pth", "give a checkpoint or an ONNX file")
    loaded = load_model(path, arch)
    return SourceGraph(path, onnx_from_module(loaded.module, loaded.spec), loaded.spec, loaded.sha256)


def with_open_batch(source: SourceGraph) -> SourceGraph:
    """``source`` for batches of any size.

    Raises:
        RcompressError: a fixed batch is built into it.
    """
    model = with_free_batch(source.model, str(source.path))
    fixed = shape_of(graph_input(model, str(source.path)))[0]
    if fixed is not None:
        raise RcompressError(
            source.path,
            f"takes batches of {fixed} alone, whatever --batch-range says",
            "export it with a free batch axis, or leave --batch-range out",
        )
    return replace(source, model=model)


def foreign_spec(
    source: SourceGraph, mean: tuple[float, ...], std: tuple[float, ...], dataset: str | None
) -> ModelSpec:
    """A description of a graph that has none: its own sizes, and what the user says of its images.

    Its history begins with an import, for nothing is known of its training.

    Raises:
        RcompressError: the graph is no image classifier, or ``mean`` and ``std`` do not fit its channels.
    """
    subject = str(source.path)
    shape = shape_of(graph_input(source.model, subject))[1:]
    outputs = shape_of(source.model.graph.output[0])
    sizes = [size for size in (*shape, *outputs[1:]) if size is not None]
    if len(shape) != 3 or len(outputs) != 2 or len(sizes) != 4:
        raise RcompressError(
            subject, "is no classifier of images (N, C, H, W) of a fixed size", "export it as one"
        )
    channels, height, width, classes = sizes
    try:
        preprocessing = Preprocessing((channels, height, width), mean, std, dataset)
        said = {"mean": list(mean), "std": list(std)}
        origin = Step("import", said, parent_name=source.path.name, parent_sha256=source.sha256)
        return ModelSpec(classes, preprocessing, lineage=(origin,))
    except SpecError as error:
        raise RcompressError(subject, str(error), "give --mean and --std one value per channel") from None
