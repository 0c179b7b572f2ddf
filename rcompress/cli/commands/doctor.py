"""``rcompress doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rcompress.cli import options
from rcompress.cli.output import Output

if TYPE_CHECKING:
    from rcompress.engines.base import BackendStatus
    from rcompress.engines.capabilities import Support
    from rcompress.engines.doctor import Checkup, Gpu

GIB = 1024**3
Row = tuple[str, str, str]


def command(
    data_dir: options.DataDir = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show what this machine can run.

    Instruction sets, GPUs, number formats, backends, data, and what to choose.

    Example: rcompress doctor
    """
    with Output(json_, quiet) as out:
        from rcompress.engines.doctor import examine

        found = examine(data_dir)
        out.table("", ("what", "here", "which means"), _rows(found), found.to_dict(), left=3)


def _rows(found: Checkup) -> list[Row]:
    machine = found.machine
    features = " ".join(machine["features"]) or "none that matter here"
    rows: list[Row] = [
        ("CPU", machine["cpu"], f"{machine['system']} on {machine['architecture']}"),
        ("cores, memory", f"{machine['cores']}, {found.memory_bytes / GIB:.1f} GiB", ""),
        ("instruction set", machine["instruction_set"], features),
        *(_support_row("CPU", support) for support in found.cpu),
    ]
    for gpu in found.gpus:
        rows += _gpu_rows(gpu)
    if found.gpu_fault:
        rows.append(("GPU", "none", found.gpu_fault))
    rows += [_backend_row(status) for status in found.backends]
    rows.append(("data digits", "found", "embedded"))
    rows += [_data_row(name, place, found.data_dir) for name, place in found.datasets.items()]
    rows.append(("versions", f"rcompress {found.versions['rcompress']}", _versions(found.versions)))
    advice = found.advice
    choice = f"--backend {advice.backend}, {advice.precision}"
    return [*rows, ("choose", choice, f"{advice.reason}; training: --precision {advice.training_precision}")]


def _support_row(processor: str, support: Support) -> Row:
    return (f"{processor} {support.format}", "yes" if support.supported else "no", support.meaning)


def _gpu_rows(gpu: Gpu) -> list[Row]:
    driver = gpu.driver or "unknown (pip install nvidia-ml-py to see it)"
    what = f"SM {gpu.compute_capability}, {gpu.memory_bytes / GIB:.1f} GiB, driver {driver}"
    return [("GPU", gpu.name, what), *(_support_row("GPU", support) for support in gpu.supports)]


def _backend_row(status: BackendStatus) -> Row:
    version = status.version or "not installed"
    if status.usable:
        return (f"backend {status.backend}", version, "usable")
    able = "builds with --target, but " if status.backend == "tensorrt-rtx" and status.version else ""
    return (
        f"backend {status.backend}",
        version,
        f"{able}cannot run engines: {status.fault}; {status.remedy}",
    )


def _data_row(name: str, place: str | None, data_dir: str) -> Row:
    if place is not None:
        return (f"data {name}", "found", place)
    return (
        f"data {name}",
        "not found",
        f"under {data_dir} (--data-dir or RCOMPRESS_DATA_DIR names another folder)",
    )


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if name != "rcompress")
