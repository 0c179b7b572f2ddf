"""What quantize and build-engine do alike: describe a foreign graph, open what calibrates it, keep the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rcompress.cli.given import require_absent
from rcompress.cli.naming import beside
from rcompress.cli.output import Output
from rcompress.cli.retraining import Retrained, finished
from rcompress.errors import RcompressError

if TYPE_CHECKING:
    from rcompress.artifacts.spec import ModelSpec
    from rcompress.methods.calibration_cache import CalibrationCache
    from rcompress.methods.calibration_data import CalibrationChoice, CalibrationImages
    from rcompress.methods.mixed_precision import Spared
    from rcompress.methods.quantize import QuantizedGraph, QuantizeOptions
    from rcompress.methods.reconstruction import ReconstructionOptions
    from rcompress.methods.source_graph import SourceGraph

    Calibration = CalibrationCache | CalibrationImages

Method = Literal["minmax", "percentile", "entropy", "mse", "moving-average"]

Calib = Annotated[
    str | None,
    typer.Option(
        "--calib",
        help="Calibration images: a dataset as in cifar10:512, imagefolder:DIR or parquet:DIR, or a "
        "cache NAME.calib.json (default: the training split of the dataset that the file names).",
    ),
]
CalibImages = Annotated[int, typer.Option("--calib-images", min=1, help="How many of them.")]
RangeMethod = Annotated[Method, typer.Option("--method", help="How activation ranges are chosen.")]
Percentile = Annotated[
    float, typer.Option(min=50.0, max=100.0, help="Share of the values to keep, for --method percentile.")
]
Mean = Annotated[str | None, typer.Option(help="Mean per channel, of an ONNX file that does not say it.")]
Std = Annotated[str | None, typer.Option(help="Standard deviation per channel, likewise.")]


def require_one_count(context: typer.Context, calib: str | None) -> None:
    """Refuse --calib-images beside a --calib that says how many images, or holds ranges."""
    if calib is not None and (calib.endswith(".json") or calib.rpartition(":")[2].isdigit()):
        require_absent(context, ("calib_images",), f"--calib {calib} leaves nothing to say")


def described(
    graph: SourceGraph,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    dataset: str | None,
    needed: bool,
) -> ModelSpec | None:
    """What the file says of itself; of a foreign one, what the options say.

    Raises:
        RcompressError: the file says it and the options too, or neither does and it is ``needed``.
    """
    from rcompress.methods.source_graph import foreign_spec

    if graph.spec is not None:
        if mean is not None or std is not None:
            raise RcompressError(
                graph.path, "already says how its images are normalised", "leave --mean and --std out"
            )
        return graph.spec
    if (mean is None) != (std is None):
        raise RcompressError(graph.path, "is given only one of --mean and --std", "give both")
    if mean is not None and std is not None:
        return foreign_spec(graph, mean, std, dataset)
    if needed:
        raise RcompressError(
            graph.path,
            "does not say how its images are prepared, which calibration needs",
            "add --calib DATASET --mean M,M,M --std S,S,S",
        )
    return None


def open_calibration(
    choice: CalibrationChoice, spec: ModelSpec, source: Path, data_dir: Path | None, seed: int, out: Output
) -> Calibration:
    """The cache or the images that ``choice`` names."""
    from rcompress.methods.calibration_cache import read_cache
    from rcompress.methods.calibration_data import open_images

    if choice.cache is not None:
        return read_cache(choice.cache)
    return open_images(choice, spec, source, data_dir, seed, out)


def keep_cache(path: Path, cache: CalibrationCache, out: Output) -> Path:
    """Write ``cache`` beside ``path``, and say so."""
    from rcompress.methods.calibration_cache import write_cache

    written = write_cache(beside(path, ".calib.json"), cache)
    out.note(
        f"calibrated with {cache.images} images of {cache.dataset} ({cache.method}), ranges in {written}"
    )
    return written


def write_quantized(
    target: Path,
    graph: SourceGraph,
    spec: ModelSpec | None,
    given: Calibration | None,
    how: QuantizeOptions,
    mending: ReconstructionOptions,
    spared: Spared | None,
    out: Output,
    train: Callable[[QuantizedGraph, dict[str, Any]], Retrained] | None = None,
) -> dict[str, Any]:
    """Quantize ``graph`` into ``target``, keep its cache, and say what the runtimes make of it.

    ``train`` is given the quantized graph and its record, and trains it before it is written.
    """
    from rcompress.artifacts.onnx_file import write_graph
    from rcompress.artifacts.spec import Step, parent_fields
    from rcompress.engines.compiled import compiled_graphs
    from rcompress.measure.static import graph_metrics, inherited
    from rcompress.methods.int4 import widened
    from rcompress.methods.post_training import quantization_record, quantize_after_training

    quantized, cache = quantize_after_training(graph.model, given, how, str(graph.path), out, mending)
    record = quantization_record(how, quantized.report, cache, mending)
    retrained = None if train is None else train(quantized, record)
    chosen = spec is not None and (spared is not None or retrained is not None)
    step = Step(
        "quantize",
        record | (retrained.details if retrained else {}),
        **parent_fields(graph.path, graph.sha256),
        metrics=inherited(graph_metrics(graph.model)) | (retrained.metrics if retrained else {}),
        chosen_on=spec.choice_split if spec is not None and chosen else None,
    )
    if retrained is not None:
        quantized = replace(quantized, model=retrained.trained.model)
    write_graph(target, quantized.model, None if spec is None else spec.with_step(step))
    out.note(quantized.report.sentence())
    compiled = compiled_graphs(widened(quantized.model))
    for found in compiled:
        out.note(found.sentence())
    if how.bits.weights == 4:
        out.note("4-bit weights save space; for speed rcompress build-engine writes them as INT8")
    return {
        **say_sizes(target, graph.path, out),
        "calibration": None if cache is None else str(keep_cache(target, cache, out)),
        "report": asdict(quantized.report),
        "kept": [] if spared is None else list(spared.layers),
        "compiled": [found.to_dict() for found in compiled],
        **({} if retrained is None else finished(target, retrained, out)),
    }


def say_sizes(target: Path, source: Path, out: Output) -> dict[str, int]:
    """How large a file is, and the one that it was made from."""
    size, before = target.stat().st_size, source.stat().st_size
    out.note(f"{size:,} bytes, {size / before:.2f} times the source's {before:,}")
    return {"size_bytes": size, "source_bytes": before}
