"""``rcompress export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rcompress.cli import options
from rcompress.cli.naming import derived
from rcompress.cli.output import Output

if TYPE_CHECKING:
    from rcompress.artifacts.spec import ModelSpec
    from rcompress.models import LoadedModel

FORMATS = (".onnx", ".pt", ".pt2")


def command(
    source: options.Source,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Its suffix selects .onnx (default), .pt (TorchScript) or .pt2."),
    ] = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing", help="ONNX: take uint8 NHWC images; resize and normalise inside."
        ),
    ] = False,
    arch: options.ArchCode = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a checkpoint as ONNX, in one file.

    The batch size is free, BatchNorm folded, the graph simplified, and its outputs are compared with PyTorch's.
    TorchScript (.pt) and torch.export (.pt2) by the output's suffix.

    Example: rcompress export r20.pth
    """
    target = output or derived(source, "pre" if with_preprocessing else "", ".onnx")
    if target.suffix not in FORMATS:
        raise typer.BadParameter(f"{target.name}: choose {', '.join(FORMATS)}", param_hint="-o")
    if with_preprocessing and target.suffix != ".onnx":
        raise typer.BadParameter("goes into ONNX files only", param_hint="--with-preprocessing")
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_output
        from rcompress.artifacts.spec import Step, parent_fields
        from rcompress.models import load_model

        require_output(target, [source])
        loaded = load_model(source, arch)
        details = {"format": target.suffix.removeprefix("."), "with_preprocessing": with_preprocessing}
        spec = loaded.spec.with_step(Step("export", details, **parent_fields(source, loaded.sha256)))
        difference = _write(loaded, spec, target, with_preprocessing)
        if difference is not None:
            out.note(f"largest difference of the outputs, ONNX Runtime against PyTorch: {difference:.2g}")
        out.path(target, **({} if difference is None else {"max_abs_difference": difference}))


def _write(loaded: LoadedModel, spec: ModelSpec, target: Path, with_preprocessing: bool) -> float | None:
    from rcompress.artifacts.files import write_atomic
    from rcompress.artifacts.onnx_file import write_onnx
    from rcompress.export import export_onnx, exported_program_bytes, torchscript_bytes

    if target.suffix == ".onnx":
        exported = export_onnx(loaded.module, spec, with_preprocessing)
        write_onnx(target, exported.model, exported.spec)
        return exported.max_abs_difference
    convert = torchscript_bytes if target.suffix == ".pt" else exported_program_bytes
    write_atomic(target, convert(loaded.module, spec))
    return None
