"""``rcompress bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rcompress.cli import options
from rcompress.cli.output import Output, print_table

if TYPE_CHECKING:
    from rcompress.artifacts.records import Record

MIB = 1024 * 1024
DEFAULT_OUTPUT = Path("bench.result.json")


def command(
    artifacts: Annotated[
        list[Path],
        typer.Argument(
            help="Any number of artifacts; speed-ups are against the first on the same device.",
            show_default=False,
        ),
    ],
    batch_size: Annotated[
        list[int] | None,
        typer.Option("--batch-size", "-b", min=1, help="Images per call; repeat for several (1 and 64)."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0: all cores.")] = 1,
    warmup: Annotated[int, typer.Option(min=1, help="Calls of each before anything is timed.")] = 10,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, help="Timed calls of each per trial (default: half a second's worth, 5 to 500)."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Repetitions, whose spread is reported.")] = 5,
    backend: options.RunBackend = None,
    arch: options.ArchCode = None,
    device: options.Device = "auto",
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the records go.")] = DEFAULT_OUTPUT,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Time artifacts against each other.

    All take turns in one run, and the records are written. Latency is that of one call on inputs in place
    (random values); of a GPU, transfers are not included. Only one timing runs on a machine at a time. Peak
    memory is what a fresh process grows by that holds the artifact and runs it.

    Example: rcompress bench r20.pth r20-pruned60.onnx r20-pruned60-int8.xml -b 1 -b 64
    """
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_output
        from rcompress.artifacts.records import SCHEMA, write_records
        from rcompress.engines.base import RunOptions
        from rcompress.engines.benchmark import BenchOptions, benchmark

        require_output(output, artifacts)
        run = RunOptions(device, threads, arch)
        sizes = tuple(batch_size or (1, 64))
        records = benchmark(artifacts, BenchOptions(sizes, warmup, iterations, trials, backend, run), out)
        write_records(output, records)
        data = {"schema": SCHEMA, "records": [record.to_dict() for record in records]}
        out.table(_conditions(records), *_speed_table(records), data, left=3)
        if not json_:
            print_table("", *_size_table(records))
        out.note(f"records: {output}")


def _conditions(records: list[Record]) -> str:
    """All that the figures depend on."""
    record = records[0]
    context, machine = record.context, record.machine
    devices = ", ".join(dict.fromkeys(str(each.context["device"]) for each in records))
    transfers = ", ".join(dict.fromkeys(str(each.context["transfers"]) for each in records))
    threads = context["threads"]
    versions = "  ".join(f"{name} {version}" for name, version in record.versions.items())
    return (
        f"{machine['cpu']} ({machine['instruction_set']}), device {devices}, "
        f"{threads} thread{'s' if threads > 1 else ''}, transfers: {transfers}, "
        f"{context['trials']} interleaved trials (± and ranges are over them)\n{versions}"
    )


def _speed_table(records: list[Record]) -> tuple[list[str], list[list[str]]]:
    devices = len({record.context["device"] for record in records})
    columns = ["artifact", "backend", *["device"] * (devices > 1), "runs in", "batch"]
    columns += ["p50 ms", "p90 ms", "p99 ms", "images/s", "speed-up"]
    return columns, [_speed_row(record, devices > 1) for record in records]


def _speed_row(record: Record, with_device: bool) -> list[str]:
    metrics, context = record.metrics, record.context
    row = [record.artifact, context["backend"], *[context["device"]] * with_device]
    row += [_layers(context["executed_layers"]), str(context["batch_size"])]
    row += [f"{metrics['latency_p50_ms']:.3f} ± {metrics['latency_p50_ms_std']:.3f}"]
    row += [f"{metrics[f'latency_{name}_ms']:.3f}" for name in ("p90", "p99")]
    row += [f"{metrics['throughput_images_per_s']:,.0f}"]
    low, high = metrics["latency_speedup_low"], metrics["latency_speedup_high"]
    return [*row, f"{metrics['latency_speedup']:.2f}x ({low:.2f}-{high:.2f})"]


def _layers(executed: dict[str, int]) -> str:
    """``I8``, or ``20 I8 + 1 F32``: the precisions that the layers really ran in, if the runtime tells."""
    if len(executed) < 2:
        return next(iter(executed), "?")
    return " + ".join(f"{count} {precision}" for precision, count in executed.items())


def _size_table(records: list[Record]) -> tuple[list[str], list[list[str]]]:
    """A row for each artifact; peak memory and energy, where it is known, at each batch size."""
    batches = list(dict.fromkeys(record.context["batch_size"] for record in records))
    energy = any("energy_j_per_image" in record.metrics for record in records)
    columns = ["artifact", "file MiB", "weights MiB", "parameters", "non-zero", "MMACs"]
    columns += [f"peak MiB, batch {batch}" for batch in batches]
    columns += [f"J/image, batch {batch}" for batch in batches] * energy
    rows = []
    for name in dict.fromkeys(record.artifact for record in records):
        mine = {record.context["batch_size"]: record.metrics for record in records if record.artifact == name}
        at = [mine.get(batch, {}) for batch in batches]
        first = next(iter(mine.values()))
        row = [name, _shown(first, "size_bytes", MIB, 3), _shown(first, "weights_bytes", MIB, 3)]
        row += [
            _shown(first, "parameters"),
            _shown(first, "nonzero_parameters"),
            _shown(first, "macs", 1e6, 2),
        ]
        row += [_shown(metrics, "peak_memory_bytes", MIB, 1) for metrics in at]
        rows.append(row + [_shown(metrics, "energy_j_per_image", 1, 5) for metrics in at] * energy)
    return columns, rows


def _shown(metrics: dict[str, Any], name: str, unit: float = 1, decimals: int = 0) -> str:
    """Empty where it is not known: an engine that was built elsewhere tells little."""
    return f"{metrics[name] / unit:,.{decimals}f}" if name in metrics else ""
