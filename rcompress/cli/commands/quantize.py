"""``rcompress quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rcompress.cli import calibrating, options, retraining
from rcompress.cli.given import require_absent
from rcompress.cli.naming import derived
from rcompress.cli.output import Output
from rcompress.cli.values import floats_per_channel

if TYPE_CHECKING:
    from rcompress.artifacts.spec import ModelSpec
    from rcompress.cli.calibrating import Calibration
    from rcompress.methods.mixed_precision import Spared
    from rcompress.methods.quantize import QuantizeOptions
    from rcompress.methods.source_graph import SourceGraph

ProfileChoice = Literal["cpu", "tensorrt"]
BackendChoice = Literal["openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"]
ADAROUND_ITERATIONS = 1000

OF_INTEGERS = (
    "profile",
    "backend",
    "calib",
    "calib_images",
    "method",
    "percentile",
    "per_channel",
    "weight_bits",
    "activation_bits",
    "group_size",
    "equalize",
    "adaround",
    "adaround_iterations",
    "bias_correction",
    "skip",
    "max_drop",
    "qat",
)


def command(
    context: typer.Context,
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
    weight_bits: Annotated[
        Literal["8", "4"], typer.Option("--weight-bits", help="4 halves the file; engines run it as INT8.")
    ] = "8",
    activation_bits: Annotated[
        Literal["8", "none"], typer.Option("--activation-bits", help="none: weights alone are quantized.")
    ] = "8",
    group_size: Annotated[
        int | None,
        typer.Option("--group-size", min=8, help="A weight scale for so many inputs of each channel."),
    ] = None,
    equalize: Annotated[
        bool, typer.Option("--equalize", help="First give channels like ranges on both sides of a ReLU.")
    ] = False,
    adaround: Annotated[
        bool, typer.Option("--adaround", help="Learn on the images which weights to round up.")
    ] = False,
    adaround_iterations: Annotated[
        int, typer.Option("--adaround-iterations", min=1, help="Steps for each layer.")
    ] = ADAROUND_ITERATIONS,
    bias_correction: Annotated[
        bool, typer.Option("--bias-correction", help="Let biases take up each channel's mean error.")
    ] = False,
    skip: Annotated[
        list[str] | None,
        typer.Option("--skip", help="Leave this layer in FP32 (a name from inspect; several times)."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            min=0.0,
            help="Spare the most sensitive layers until top-1 drops by no more points than this.",
        ),
    ] = None,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="No integers: half precision, in an .onnx or a .pth.")
    ] = False,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="No integers: brain floating point, likewise.")
    ] = False,
    qat: retraining.Qat = False,
    epochs: retraining.QatEpochs = None,
    learning_rate: retraining.QatLearningRate = None,
    batch_size: retraining.QatBatchSize = None,
    scales: retraining.QatScales = None,
    precision: options.Precision = "auto",
    teacher: options.Teachers = None,
    distill: options.Distill = True,
    temperature: options.Temperature = None,
    alpha: options.Alpha = None,
    resume: options.Resume = False,
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
    """Quantize a checkpoint or any ONNX classifier, after training or with it.

    Writes an ONNX graph with explicit QuantizeLinear and DequantizeLinear for the engines of CPUs, or with
    --backend tensorrt for those of GPUs, and the activation ranges beside it (NAME.calib.json), which --calib
    takes back. What ONNX Runtime and OpenVINO make
    of the graph on this machine is told. With --fp16 or --bf16 the numbers become half as long instead.
    --qat trains the graph that is written: rounded weights, scales and biases, taught by the network before.

    Example: rcompress quantize r20.pth --calib cifar10:512
    """
    means, stds = floats_per_channel(mean, "--mean"), floats_per_channel(std, "--std")
    wanted, half = _profile(profile, backend), _half(fp16, bf16)
    if half is not None:
        require_absent(context, OF_INTEGERS, f"--{half} writes no integers")
    if group_size is not None and activation_bits != "none":
        raise typer.BadParameter(
            "no engine multiplies INT8 by weights in groups; add --activation-bits none",
            param_hint="--group-size",
        )
    asked = retraining.Retraining(
        qat, epochs, learning_rate, batch_size, scales, resume, teacher, distill, temperature, alpha
    )
    if not qat:
        require_absent(context, ("distill", "precision"), "goes with --qat")
    if not adaround:
        require_absent(context, ("adaround_iterations",), "goes with --adaround")
    if method != "percentile":
        require_absent(context, ("percentile",), "goes with --method percentile")
    if group_size is not None:
        require_absent(context, ("per_channel",), "--group-size gives each group of inputs a scale")
    calibrating.require_one_count(context, calib)
    looks_at_images = activation_bits != "none" or adaround or bias_correction or max_drop is not None
    if activation_bits == "none":
        require_absent(context, ("method", "percentile"), "no range is measured where activations stay FP32")
    if not looks_at_images:
        require_absent(context, ("calib", "calib_images"), "nothing is calibrated here")
    with Output(json_, quiet) as out:
        from rcompress.artifacts.device import resolve_device
        from rcompress.artifacts.files import require_file, require_named_output
        from rcompress.cli.session import set_threads
        from rcompress.methods.calibration_data import parse_choice
        from rcompress.methods.placement import LayerBits
        from rcompress.methods.quantize import QuantizeOptions
        from rcompress.methods.reconstruction import ReconstructionOptions
        from rcompress.methods.source_graph import open_graph

        require_file(source)
        set_threads(threads)
        if half is not None:
            _write_half(source, output, half, arch, (means, stds, dataset), out)
            return
        default = derived(source, _tag(weight_bits, activation_bits, wanted, qat), ".onnx")
        target = require_named_output(output or default, "graph", ".onnx", [source, *(teacher or ())])
        where = str(resolve_device(device))
        bits = LayerBits(4 if weight_bits == "4" else 8, activation_bits == "8", skip=tuple(skip or ()))
        how = QuantizeOptions(wanted, method, percentile, per_channel, where, bits, group_size, equalize)
        mending = ReconstructionOptions(adaround_iterations if adaround else 0, bias_correction, where, seed)
        graph = open_graph(source, arch)
        choice = parse_choice(calib or dataset, calib_images)
        needed = looks_at_images or qat
        spec = calibrating.described(graph, means, stds, dataset or choice.dataset, needed)
        given = (
            calibrating.open_calibration(choice, spec, source, data_dir, seed, out)
            if looks_at_images and spec is not None
            else None
        )
        spared = None
        if max_drop is not None and spec is not None:
            spared = _spared(graph, spec, given, max_drop, how, data_dir, out)
            how = spared.options
        train = None
        if qat and spec is not None:
            place = retraining.Place(target, dataset, data_dir, device, threads, precision, seed, arch)
            train = retraining.training(asked, place, graph, spec, how, out)
        told = calibrating.write_quantized(target, graph, spec, given, how, mending, spared, out, train)
        out.path(target, **told)


def _half(fp16: bool, bf16: bool) -> Literal["fp16", "bf16"] | None:
    if fp16 and bf16:
        raise typer.BadParameter("choose one of --fp16 and --bf16")
    return "fp16" if fp16 else "bf16" if bf16 else None


def _profile(profile: ProfileChoice | None, backend: BackendChoice | None) -> ProfileChoice:
    implied: ProfileChoice = "tensorrt" if backend in ("tensorrt", "tensorrt-rtx") else "cpu"
    if profile is not None and backend is not None and profile != implied:
        raise typer.BadParameter(f"{backend} takes the profile {implied}", param_hint="--profile")
    return profile or implied


def _tag(weight_bits: str, activation_bits: str, profile: ProfileChoice, trained: bool) -> str:
    """``int8``, ``w4a8``, ``w8`` or ``w4`` in the derived name, then ``-tensorrt`` and ``-qat`` where they hold."""
    integers = "int8" if weight_bits == "8" else "w4a8"
    bits = f"w{weight_bits}" if activation_bits == "none" else integers
    return bits + ("-tensorrt" if profile == "tensorrt" else "") + ("-qat" if trained else "")


def _spared(
    graph: SourceGraph,
    spec: ModelSpec,
    given: Calibration | None,
    max_drop: float,
    how: QuantizeOptions,
    data_dir: Path | None,
    out: Output,
) -> Spared:
    from rcompress.data import dataset_for
    from rcompress.errors import RcompressError
    from rcompress.methods.calibration_data import CalibrationImages
    from rcompress.methods.mixed_precision import within_drop

    if not isinstance(given, CalibrationImages):
        raise RcompressError(graph.path, "--max-drop needs images, not ranges", "name a dataset with --calib")
    opened = dataset_for(graph.path, spec.preprocessing, given.dataset, data_dir)
    choice = opened.split(spec.choice_split)
    found = within_drop(graph.model, given, choice, max_drop, how, str(graph.path), out)
    kept = ", ".join(found.layers) or "none"
    higher = "8-bit weights" if how.bits.weights == 4 else "FP32"
    out.note(
        f"layers kept in {higher}: {kept} ({len(found.layers)}); {spec.choice_split} top-1 "
        f"{found.float_percent:.2f} -> {found.percent:.2f} %"
    )
    return found


def _write_half(
    source: Path,
    output: Path | None,
    half: Literal["fp16", "bf16"],
    arch: str | None,
    images: tuple[tuple[float, ...] | None, tuple[float, ...] | None, str | None],
    out: Output,
) -> None:
    from rcompress.artifacts.files import require_output
    from rcompress.methods.half_file import write_half_checkpoint, write_half_graph
    from rcompress.methods.source_graph import open_graph

    target = require_output(output or derived(source, half, ".onnx"), [source])
    if target.suffix not in (".onnx", ".pth") or (target.suffix, source.suffix) == (".pth", ".onnx"):
        raise typer.BadParameter(f"{target.name}: choose .onnx, or .pth from a .pth", param_hint="-o")
    if target.suffix == ".pth":
        write_half_checkpoint(source, target, half, arch)
    else:
        graph = open_graph(source, arch)
        write_half_graph(graph, calibrating.described(graph, *images, needed=False), target, half)
    out.path(target, **calibrating.say_sizes(target, source, out))
