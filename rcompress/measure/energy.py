"""Energy, where the machine counts it: RAPL for CPUs, NVML for NVIDIA GPUs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rcompress.measure.lock import timing_lock
from rcompress.progress import SILENT, Progress

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class EnergyMeter:
    """A counter of joules.

    Attributes:
        name: what it counts, in words.
        read_joules: its current value.
        wraps_at_joules: where it starts again from zero; 0: never.
    """

    name: str
    read_joules: Callable[[], float]
    wraps_at_joules: float = 0.0

    def between(self, before: float, after: float) -> float:
        """Joules from one reading to a later one."""
        return after - before if after >= before else after - before + self.wraps_at_joules


def energy_meter(device: str, powercap: Path = POWERCAP) -> EnergyMeter | str:
    """The meter of ``device`` (``cpu``, ``cuda``, ``cuda:N``), or in words why there is none."""
    return _nvml_meter(device) if device.startswith("cuda") else _rapl_meter(powercap)


def energy_j_per_image(
    call: Callable[[], Any],
    images_per_call: int,
    meter: EnergyMeter,
    seconds: float = 1.0,
    progress: Progress = SILENT,
) -> float:
    """Joules per image while ``call`` runs again and again for ``seconds``, alone under the timing lock.

    The idle power of the counted part (package or board) is in it.
    """
    with timing_lock(progress):
        call()
        calls, began, before = 0, time.perf_counter(), meter.read_joules()
        while time.perf_counter() - began < seconds:
            call()
            calls += 1
        spent = meter.between(before, meter.read_joules())
    return spent / (calls * images_per_call)


def _rapl_meter(powercap: Path) -> EnergyMeter | str:
    """Sum of the processor packages (Linux names AMD's counters ``intel-rapl`` as well)."""
    packages = [
        zone / "energy_uj" for zone in sorted(powercap.glob("intel-rapl:*")) if zone.name.count(":") == 1
    ]
    packages = [counter for counter in packages if _text(counter.with_name("name")).startswith("package")]
    if not packages:
        return f"this system has no RAPL counters under {powercap}"
    try:
        ranges = [int(counter.with_name("max_energy_range_uj").read_text()) for counter in packages]
        _ = [int(counter.read_text()) for counter in packages]
    except PermissionError:
        return f"{packages[0]} is readable by root alone"
    return EnergyMeter(
        f"RAPL, {len(packages)} package{'s' if len(packages) > 1 else ''}",
        lambda: sum(int(counter.read_text()) for counter in packages) / 1e6,
        ranges[0] / 1e6,
    )


def _nvml_meter(device: str) -> EnergyMeter | str:
    try:
        import pynvml
    except ImportError:
        return "NVML's Python package is not installed (pip install nvidia-ml-py)"
    import torch

    if int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
        return f"NVML cannot count for {device}, which is not there"
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{_uuid(device)}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        return f"NVML counts no energy here ({error})"
    return EnergyMeter(
        "NVML, whole board", lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
    )


def _text(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def _uuid(device: str) -> str:
    """Of the board that CUDA calls ``device``; NVML numbers them otherwise, whatever CUDA_VISIBLE_DEVICES says."""
    import torch

    return str(torch.cuda.get_device_properties(torch.device(device)).uuid)
