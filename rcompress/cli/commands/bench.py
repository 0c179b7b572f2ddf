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
        typer.Argument(help="Any number of artifacts; speed-ups are against the first.", show_default=False),
    ],
    batch_size: Annotated[
        list[int] | None,
        typer.Option("--batch-size", "-b", min=1, help="Images per call; repeat for several (1 and 64)."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0: all cores.")] = 1,
    warmup: Annotated[int, typer.Option(min=1, help="Calls of each before anything is timed.")] = 10,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, help="Timed calls of each per trial (default: half a second's worth)."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Repetitions, whose spread is reported.")] = 5,
    backend: options.RunBackend = None,
    arch: options.ArchCode = None,
    device: options.Device = "auto",
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the records go.")] = DEFAULT_OUTPUT,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Time artifacts against each other, all taking turns in one run, and write the records.

    Latency is that of one call on inputs in place (random values); of a GPU, transfers are not included. Only
    one timing runs on a machine at a time. Peak memory is what a fresh process grows by while it loads and
    runs the artifact.

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
        out.table(_conditions(records[0]), *_speed_table(records), data, left=3)
        if not json_:
            print_table("", *_size_table(records))
        out.note(f"records: {output}")


def _conditions(record: Record) -> str:
    """One line: all that the figures depend on."""
    context, machine = record.context, record.machine
    threads = context["threads"]
    versions = "  ".join(f"{name} {version}" for name, version in record.versions.items())
    return (
        f"{machine['cpu']} ({machine['instruction_set']}), device {context['device']}, "
        f"{threads} thread{'s' if threads > 1 else ''}, transfers: {context['transfers']}, "
        f"{context['trials']} interleaved trials, p50-p99 over all calls, speed-up by median\n{versions}"
    )


def _speed_table(records: list[Record]) -> tuple[list[str], list[list[str]]]:
    columns = ["artifact", "backend", "runs in", "batch", "p50 ms", "p90 ms", "p99 ms", "± p50", "images/s"]
    columns += ["speed-up", "(trials)", "peak MiB"]
    energy = any("energy_j_per_image" in record.metrics for record in records)
    return columns + ["J/image"] * energy, [_speed_row(record, energy) for record in records]


def _speed_row(record: Record, energy: bool) -> list[str]:
    metrics, context = record.metrics, record.context
    layers = " ".join(f"{count}x{precision}" for precision, count in context["executed_layers"].items())
    row = [record.artifact, context["backend"], layers or "?", str(context["batch_size"])]
    row += [f"{metrics[f'latency_{name}_ms']:.3f}" for name in ("p50", "p90", "p99")]
    row += [f"{metrics['latency_p50_ms_std']:.3f}", f"{metrics['throughput_images_per_s']:,.0f}"]
    row += [f"{metrics['latency_speedup']:.2f}x"]
    row += [f"{metrics['latency_speedup_low']:.2f}-{metrics['latency_speedup_high']:.2f}"]
    row += [f"{metrics['peak_memory_bytes'] / MIB:.1f}"]
    return row + [f"{metrics['energy_j_per_image']:.4f}" if "energy_j_per_image" in metrics else ""] * energy


def _size_table(records: list[Record]) -> tuple[list[str], list[list[str]]]:
    columns = ["artifact", "file MiB", "weights MiB", "parameters", "non-zero", "MMACs"]
    distinct = {record.artifact: record.metrics for record in records}
    return columns, [[name, *_sizes(metrics)] for name, metrics in distinct.items()]


def _sizes(metrics: dict[str, Any]) -> list[str]:
    """An engine that was built elsewhere may not know all of them."""

    def shown(name: str, unit: float, decimals: int) -> str:
        return f"{metrics[name] / unit:,.{decimals}f}" if name in metrics else ""

    return [
        shown("size_bytes", MIB, 3),
        shown("weights_bytes", MIB, 3),
        shown("parameters", 1, 0),
        shown("nonzero_parameters", 1, 0),
        shown("macs", 1e6, 2),
    ]
