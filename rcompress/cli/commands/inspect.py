"""``rcompress inspect``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rcompress.cli import options
from rcompress.cli.output import Output, print_table
from rcompress.report.text import printable

if TYPE_CHECKING:
    from rcompress.artifacts.spec import ModelSpec
    from rcompress.engines.inspection import Inspection

KIB, MIB = 1024, 1024 * 1024


def command(
    source: options.Source,
    layers: Annotated[bool, typer.Option("--layers/--no-layers", help="List every layer.")] = True,
    arch: options.ArchCode = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show what an artifact is and comes from.

    Sizes, layers, preprocessing, and the whole history back to training.

    Example: rcompress inspect r20-pruned60-int8.xml
    """
    with Output(json_, quiet) as out:
        from rcompress.engines.inspection import inspect_file

        found = inspect_file(source, arch)
        if json_:
            out.json(found.to_dict())
            return
        _table(f"{source.name}: {found.kind}", ("figure", "value"), _figures(found))
        if found.spec is not None:
            _table("preprocessing and outputs", ("what", "value"), _preprocessing(found.spec))
        if layers and found.layers:
            columns = ("layer", "type", "output", "parameters", "MACs")
            _table("layers", columns, [_layer(row) for row in found.layers], left=3)
        if found.spec is not None:
            _table(
                "lineage, oldest first",
                ("command", "when", "from", "options", "figures"),
                _lineage(found.spec),
                5,
            )
            _say_commands(found.spec)
        for note in found.notes:
            out.note(str(printable(note)))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> None:
    """Of words that anyone may have written into a file: none of them steers the terminal."""
    safe = [[printable(cell) for cell in row] for row in rows]
    print_table(str(printable(title)), columns, safe, left)


def _figures(found: Inspection) -> list[tuple[str, str]]:
    metrics = found.metrics
    rows = [("size on disk", _bytes(metrics["size_bytes"]))]
    if "weights_bytes" in metrics:
        rows.append(("weights as stored", _bytes(metrics["weights_bytes"])))
    rows += [
        (name, f"{metrics[name]:,}")
        for name in ("parameters", "nonzero_parameters", "macs")
        if name in metrics
    ]
    return [*rows, ("sha256", found.sha256), *((k, str(v)) for k, v in found.facts.items())]


def _preprocessing(spec: ModelSpec) -> list[tuple[str, object]]:
    prepared = spec.preprocessing
    return [
        (
            "architecture",
            " ".join([spec.arch or "foreign graph", *(f"{k}={v}" for k, v in spec.options.items())]),
        ),
        (
            "input",
            "uint8 N x H x W x C"
            if prepared.in_graph
            else f"float32 N x {' x '.join(map(str, prepared.input_size))}",
        ),
        ("mean, std", f"{_list(prepared.mean)}; {_list(prepared.std)}"),
        (
            "resize",
            f"{prepared.resize} ({prepared.interpolation}), centre crop" if prepared.resize else "none",
        ),
        ("dataset", prepared.dataset or "unknown"),
        (
            "classes",
            f"{spec.num_classes}: {', '.join(prepared.class_names[:10])}{', ...' if spec.num_classes > 10 else ''}",
        ),
    ]


def _layer(row: dict[str, Any]) -> tuple[str, ...]:
    shape = " x ".join(str(side) for side in row["output_shape"])
    return (
        row["name"],
        row["kind"],
        shape,
        f"{row['parameters']:,}",
        "-" if row["macs"] is None else f"{row['macs']:,}",
    )


def _lineage(spec: ModelSpec) -> list[tuple[str, str, str, str, str]]:
    return [
        (
            step.command,
            step.created,
            f"{step.parent_name} {str(step.parent_sha256)[:12]}" if step.parent_name else "-",
            _pairs(step.options),
            _pairs(step.metrics),
        )
        for step in spec.lineage
    ]


def _say_commands(spec: ModelSpec) -> None:
    """What was typed to make the file, to be typed again."""
    from rcompress.report.lineage import command_texts

    for text in command_texts(step for step in spec.to_dict()["lineage"] if step["invocation"]):
        typer.echo(printable(f"rcompress {text}"))


def _pairs(values: dict[str, Any]) -> str:
    shown = {k: v for k, v in values.items() if v not in (None, {}, []) and not isinstance(v, dict | list)}
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _bytes(count: int) -> str:
    return (
        f"{count:,} bytes ({count / MIB:.2f} MiB)"
        if count >= MIB
        else f"{count:,} bytes ({count / KIB:.1f} KiB)"
    )
