"""``rcompress quantize``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rcompress.cli import calibrating, options
from rcompress.cli.naming import derived
from rcompress.cli.output import Output
from rcompress.cli.values import floats_per_channel

if TYPE_CHECKING:
    from rcompress.methods.calibration_cache import CalibrationCache
    from rcompress.methods.quantize import QuantizedGraph

ProfileChoice = Literal["cpu", "tensorrt"]
BackendChoice = Literal["openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"]


def command(
    source: options.Source,
    output: options.OutputPath = None,
    profile: Annotated[
        ProfileChoice | None,
        typer.Option(help="Whose habits the graph follows: cpu (unsigned after ReLU) or tensorrt (signed)."),
    ] = None,
    backend: Annotated[
        BackendChoice | None, typer.Option(help="Where it will run, which says the profile (default: cpu).")
    ] = None,
    calib: calibrating.Calib = None,
    calib_images: calibrating.CalibImages = 512,
    method: calibrating.RangeMethod = "minmax",
    percentile: calibrating.Percentile = 99.99,
    per_channel: Annotated[
        bool,
        typer.Option(
            "--per-channel/--per-tensor", help="A weight scale for each channel, or one for a layer."
        ),
    ] = True,
    mean: calibrating.Mean = None,
    std: calibrating.Std = None,
    dataset: options.Dataset = None,
    arch: options.ArchCode = None,
    data_dir: options.DataDir = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Quantize a checkpoint or any ONNX classifier after training.

    Writes an ONNX graph with explicit QuantizeLinear and DequantizeLinear, which every engine takes, and the
    activation ranges beside it (NAME.calib.json), which --calib takes back. What ONNX Runtime and OpenVINO make
    of the graph on this machine is told.

    Example: rcompress quantize r20.pth --calib cifar10:512
    """
    means, stds = floats_per_channel(mean, "--mean"), floats_per_channel(std, "--std")
    wanted = _profile(profile, backend)
    with Output(json_, quiet) as out:
        from rcompress.artifacts.device import resolve_device
        from rcompress.artifacts.files import require_file
        from rcompress.artifacts.onnx_file import write_onnx
        from rcompress.cli.session import set_threads
        from rcompress.methods.calibration_data import parse_choice
        from rcompress.methods.post_training import quantize_after_training, quantized_spec
        from rcompress.methods.quantize import QuantizeOptions
        from rcompress.methods.source_graph import open_graph

        require_file(source)
        set_threads(threads)
        target = _target(output or derived(source, "int8", ".onnx"), source)
        graph = open_graph(source, arch)
        choice = parse_choice(calib or dataset, calib_images)
        spec = calibrating.described(graph, means, stds, dataset or choice.dataset, needed=True)
        assert spec is not None, "described has refused a file that says nothing"
        given = calibrating.open_calibration(choice, spec, source, data_dir, seed, out)
        how = QuantizeOptions(wanted, method, percentile, per_channel, str(resolve_device(device)))
        quantized, cache = quantize_after_training(graph.model, given, how, str(source), out)
        written = quantized_spec(spec, graph, how, quantized.report, cache)
        write_onnx(target, quantized.model, written)
        out.path(target, **_told(target, source, quantized, cache, out))


def _profile(profile: ProfileChoice | None, backend: BackendChoice | None) -> ProfileChoice:
    implied: ProfileChoice = "tensorrt" if backend in ("tensorrt", "tensorrt-rtx") else "cpu"
    if profile is not None and backend is not None and profile != implied:
        raise typer.BadParameter(f"{backend} takes the profile {implied}", param_hint="--profile")
    return profile or implied


def _target(path: Path, source: Path) -> Path:
    from rcompress.artifacts.files import require_output
    from rcompress.errors import RcompressError

    if path.suffix != ".onnx" and not path.is_dir():
        raise RcompressError(path, "is no name for a graph", f"call it {path.with_suffix('.onnx').name}")
    return require_output(path, [source])


def _told(
    target: Path, source: Path, quantized: QuantizedGraph, cache: CalibrationCache, out: Output
) -> dict[str, Any]:
    """Keep the cache, ask the engines, and say what came out."""
    from rcompress.engines.compiled import compiled_graphs

    kept = calibrating.keep_cache(target, cache, out)
    out.note(quantized.report.sentence())
    compiled = compiled_graphs(quantized.model)
    for graph in compiled:
        out.note(graph.sentence())
    size, before = target.stat().st_size, source.stat().st_size
    out.note(f"{size:,} bytes, {size / before:.2f} times the source's {before:,}")
    return {
        "calibration": str(kept),
        "size_bytes": size,
        "source_bytes": before,
        "report": asdict(quantized.report),
        "compiled": [graph.to_dict() for graph in compiled],
    }
