"""What a figure was measured on: the processor, its instruction sets, and the versions of what ran."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from typing import Any

import rcompress

REPORTED_FEATURES = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "asimdhp",
    "i8mm",
    "bf16",
    "sve",
)
REPORTED_PACKAGES = ("torch", "torchvision", "torch-pruning", "onnx", "onnxruntime", "openvino")


@functools.cache
def cpu_features() -> tuple[str, ...]:
    """The instruction sets that matter here, by their Linux names, that this processor has."""
    from archspec.cpu import detect

    found = detect.detected_info().features
    return tuple(name for name in REPORTED_FEATURES if name in found)


def cpu_multiplies_bf16() -> bool:
    """Whether the processor has BF16 dot products (AMX or AVX-512): there BF16 training pays."""
    return bool({"amx_bf16", "avx512_bf16"} & set(cpu_features()))


def instruction_set() -> str:
    """One word for the processor's kind, as used beside every CPU figure."""
    features = set(cpu_features())
    if "amx_int8" in features:
        return "AMX"
    if "avx512_vnni" in features:
        return "AVX-512 VNNI"
    if "avx_vnni" in features:
        return "AVX VNNI"
    if "avx512f" in features:
        return "AVX-512"
    if "avx2" in features:
        return "AVX2"
    return "NEON" if "asimd" in features else platform.machine()


@functools.cache
def machine_summary() -> dict[str, Any]:
    """The machine in primitives, as it stands in lineage steps and records."""
    from archspec.cpu import brand_string

    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpu": brand_string() or platform.processor() or "unknown",
        "cores": available_cores(),
        "instruction_set": instruction_set(),
        "features": list(cpu_features()),
    }


def available_cores() -> int:
    """Processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of rcompress, Python and the packages that decide a figure; absent ones are left out."""
    versions = {"rcompress": rcompress.__version__, "python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
