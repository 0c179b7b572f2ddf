"""Energy counters: a folder laid out like the kernel's, and the reasons where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rcompress.measure.energy import EnergyMeter, energy_j_per_image, energy_meter


def zone(root: Path, name: str, label: str, microjoules: int) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{label}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text("1000000\n")
    return folder / "energy_uj"


def test_packages_are_summed_and_their_parts_left_out(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 200_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 150_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 300_000)
    zone(tmp_path, "intel-rapl:2", "psys", 900_000)
    meter = energy_meter("cpu", tmp_path)
    assert isinstance(meter, EnergyMeter)
    assert meter.read_joules() == pytest.approx(0.5)


def test_energy_per_image_of_a_call_that_spends_a_known_amount(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 999_900)
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        counter.write_text(str((int(counter.read_text()) + 200) % 1_000_000))

    meter = energy_meter("cpu", tmp_path)
    assert isinstance(meter, EnergyMeter)
    spent = energy_j_per_image(call, 4, meter, seconds=0.01)
    assert len(calls) > 1
    assert spent == pytest.approx(200e-6 / 4) or len(calls) > 5000  # the counter went round more than once


def test_a_counter_that_wraps():
    meter = EnergyMeter("test", lambda: 0.0, wraps_at_joules=100.0)
    assert meter.between(10.0, 25.0) == 15.0
    assert meter.between(95.0, 5.0) == pytest.approx(10.0)


def test_no_counters_is_said(tmp_path):
    assert f"no RAPL counters under {tmp_path}" in str(energy_meter("cpu", tmp_path))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_counters_for_root_alone_are_said(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 1).chmod(0)
    assert "root alone" in str(energy_meter("cpu", tmp_path))


def test_a_gpu_that_is_not_there_is_said():
    found = energy_meter("cuda:7")
    assert isinstance(found, str) and "NVML" in found
