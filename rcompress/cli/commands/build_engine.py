"""``rcompress build-engine``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rcompress.cli import calibrating, options
from rcompress.cli.given import require_absent
from rcompress.cli.naming import derived
from rcompress.cli.output import Output
from rcompress.cli.values import batch_range, floats_per_channel

if TYPE_CHECKING:
    from rcompress.engines.base import Backend, Precision
    from rcompress.methods.deploy import Deployed
    from rcompress.methods.source_graph import SourceGraph

BackendChoice = Literal["auto", "openvino", "onnxruntime", "tensorrt", "tensorrt-rtx", "torch-x86"]
OF_CALIBRATION = ("calib", "calib_images", "method", "percentile", "per_tensor")
OF_VERDICT = ("verdict_images", "batch_size")


def command(
    context: typer.Context,
    source: options.Source,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Its suffix selects .xml (OpenVINO), .onnx, .plan (TensorRT) or .x86 (PyTorch).",
        ),
    ] = None,
    backend: Annotated[
        BackendChoice,
        typer.Option(
            help="auto: TensorRT where it and a GPU are there, else OpenVINO; torch-x86: PyTorch's own INT8."
        ),
    ] = "auto",
    int8: Annotated[bool, typer.Option("--int8", help="Quantize weights and activations.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Brain floating point.")] = False,
    calib: calibrating.Calib = None,
    calib_images: calibrating.CalibImages = 512,
    method: calibrating.RangeMethod = "minmax",
    percentile: calibrating.Percentile = 99.99,
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="One weight scale for a layer, not for each channel.")
    ] = False,
    mean: calibrating.Mean = None,
    std: calibrating.Std = None,
    target: Annotated[
        str | None, typer.Option(help="TensorRT-RTX: the GPU to build for where there is none, as in sm_86.")
    ] = None,
    batches: Annotated[
        str | None,
        typer.Option("--batch-range", help="TensorRT: smallest, usual and largest batch (1:1:64)."),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(min=1, help="TensorRT: scratch memory in MiB (its own default).")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="TensorRT: file of kernel timings, read and written.")
    ] = None,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="TensorRT: run on other GPUs from Ampere on.")
    ] = False,
    sparse_weights: Annotated[
        bool,
        typer.Option("--sparse-weights", help="TensorRT: use sparse tensor cores where weights are 2:4."),
    ] = False,
    verdict: Annotated[
        bool,
        typer.Option("--verdict/--no-verdict", help="After --int8: measure which precision to ship."),
    ] = True,
    verdict_images: Annotated[
        int, typer.Option("--verdict-images", min=1, help="Images on which the verdict compares accuracy.")
    ] = 2000,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", min=1, help="Images per call that the verdict times.")
    ] = 1,
    arch: options.ArchCode = None,
    data_dir: options.DataDir = None,
    seed: options.Seed = 0,
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Build an engine from a checkpoint or ONNX file.

    For OpenVINO, ONNX Runtime, TensorRT or TensorRT-RTX, in FP32, FP16, BF16 or calibrated INT8. A graph that is
    quantized already is taken as it is.

    Example: rcompress build-engine r20.onnx --int8
    """
    precision = _precision(int8, fp16, bf16)
    if precision != "int8":
        require_absent(context, (*OF_CALIBRATION, *OF_VERDICT), "goes with --int8 alone")
    if not verdict:
        require_absent(context, OF_VERDICT, "goes with the verdict alone")
    calibrating.require_one_count(context, calib)
    if method != "percentile":
        require_absent(context, ("percentile",), "goes with --method percentile")
    means, stds = floats_per_channel(mean, "--mean"), floats_per_channel(std, "--std")
    batch_sizes = batch_range(batches or "1:1:64")
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_file, require_output
        from rcompress.cli.session import set_threads
        from rcompress.engines import BuildOptions, choose_backend
        from rcompress.methods.calibration_data import parse_choice
        from rcompress.methods.deploy import EngineRequest, deploy
        from rcompress.methods.quantize import QuantizeOptions
        from rcompress.methods.source_graph import open_graph, with_open_batch

        require_file(source)
        set_threads(threads)
        chosen = choose_backend(None if backend == "auto" else backend, output)
        path = require_output(_target(source, output, chosen, precision), [source])
        of_plans = (target, batches, workspace, timing_cache, hardware_compatible, sparse_weights)
        if path.suffix != ".plan" and any(of_plans):
            raise typer.BadParameter(
                "are TensorRT's",
                param_hint="--target, --batch-range, --workspace, --timing-cache, --hardware-compatible, "
                "--sparse-weights",
            )
        if chosen == "torch-x86":
            require_absent(context, ("method", "per_tensor"), "torch-x86 calibrates in PyTorch's own way")
            require_absent(
                context, ("verdict", *OF_VERDICT), "torch-x86 has no verdict: it is for comparison"
            )
        if timing_cache is not None:
            require_output(timing_cache, [source])
        graph = open_graph(source, arch)
        if batches is not None:
            graph = with_open_batch(graph)
        precision, quantizes = _settled(graph, precision)
        choice = parse_choice(calib, calib_images)
        spec = calibrating.described(graph, means, stds, choice.dataset, needed=quantizes)
        build = BuildOptions(
            precision=precision,
            batch_range=batch_sizes,
            workspace_bytes=workspace and workspace * 2**20,
            target=target,
            hardware_compatible=hardware_compatible,
            sparse_weights=sparse_weights,
            timing_cache=timing_cache,
        )
        profile: Literal["cpu", "tensorrt"] = "tensorrt" if path.suffix == ".plan" else "cpu"
        request = EngineRequest(chosen, build, QuantizeOptions(profile, method, percentile, not per_tensor))
        calibration = (
            calibrating.open_calibration(choice, spec, source, data_dir, seed, out)
            if quantizes and spec is not None
            else None
        )
        if chosen == "torch-x86":
            from rcompress.methods.deploy_x86 import deploy_x86

            done = deploy_x86(source, path, calibration, arch, out)
        else:
            done = deploy(graph, spec, path, request, calibration, out)
        details = _say(out, done, chosen)
        if verdict and spec is not None and done.cache is not None:
            from rcompress.cli.judging import say_verdict
            from rcompress.engines import RunOptions
            from rcompress.search.verdict import VerdictOptions

            wanted = VerdictOptions(batch_size, verdict_images, RunOptions("auto", threads))
            details |= say_verdict(out, done, graph, spec, request, data_dir, wanted)
        out.path(path, **details)


def _precision(int8: bool, fp16: bool, bf16: bool) -> Precision:
    given: dict[Precision, bool] = {"int8": int8, "fp16": fp16, "bf16": bf16}
    wanted = [precision for precision, flag in given.items() if flag]
    if len(wanted) > 1:
        raise typer.BadParameter("choose one of --int8, --fp16 and --bf16")
    return wanted[0] if wanted else "fp32"


def _settled(graph: SourceGraph, asked: Precision) -> tuple[Precision, bool]:
    """The engine's precision, and whether the graph has yet to be quantized for it.

    A graph that is quantized or in half precision already is taken as it is.
    """
    from rcompress.errors import RcompressError
    from rcompress.methods.lower_precision import precision_of

    own = precision_of(graph.model)
    if own == "fp32":
        return asked, asked == "int8"
    if asked != "fp32":
        state = "quantized" if own == "int8" else f"in {own.upper()}"
        raise RcompressError(graph.path, f"is {state} already", f"leave --{asked} out, or give the FP32 file")
    return own, False


def _target(source: Path, output: Path | None, backend: Backend, precision: Precision) -> Path:
    from rcompress.engines.selection import SUFFIXES
    from rcompress.errors import RcompressError

    path = output or derived(source, "" if precision == "fp32" else precision, SUFFIXES[backend])
    if path.resolve() == source.resolve() and backend == "onnxruntime":
        raise RcompressError(source, "runs in ONNX Runtime as it is", "nothing to build; or add --int8")
    return path


def _say(out: Output, done: Deployed, backend: Backend) -> dict[str, Any]:
    """Write the calibration cache beside the engine, and tell what came out."""
    details: dict[str, Any] = {
        "backend": backend,
        "size_bytes": done.size_bytes,
        "source_bytes": done.source_bytes,
        "executed_layers": done.executed,
        "runs_here": done.runs_here,
    }
    if done.cache is not None and done.report is not None:
        cache = calibrating.keep_cache(done.path, done.cache, out)
        report = done.report
        out.note(report.sentence())
        details |= {"calibration": str(cache), "int8_convolutions": report.convolutions}
    layers = ", ".join(f"{count} in {precision}" for precision, count in done.executed.items())
    if done.runs_here:
        out.note(f"{backend} runs the convolution and matrix layers here: {layers}")
    else:
        out.note(
            f"built, not run: {backend} cannot run here; its builder chose for the same layers: {layers}"
        )
    ratio = done.size_bytes / done.source_bytes
    out.note(f"{done.size_bytes:,} bytes, {ratio:.2f} times the source's {done.source_bytes:,}")
    if done.cache is not None and ratio > 1:
        out.note(
            "warning: the INT8 engine is larger than its source: on so small a network it saves no space"
        )
    return details
