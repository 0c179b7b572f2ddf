"""Which backends this machine has and can use, and how to get the others."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.metadata
import importlib.util
import platform
import sys
from typing import get_args

from rcompress.engines.base import Backend, BackendStatus

BACKENDS: tuple[Backend, ...] = get_args(Backend)
IMPORT_NAMES = {"tensorrt-rtx": "tensorrt_rtx", "torch-x86": "torch"}
DISTRIBUTIONS = {"torch-x86": "torch"}


def available_backends() -> tuple[BackendStatus, ...]:
    """Every backend's status, in the order of `BACKENDS`."""
    return tuple(backend_status(backend) for backend in BACKENDS)


def backend_status(backend: Backend) -> BackendStatus:
    """Whether ``backend`` runs engines here, and precisely what is missing where it does not."""
    version = installed_version(backend)
    if version is None:
        return BackendStatus(
            backend, None, "the package is not installed", f"pip install {_requirement(backend)}"
        )
    if backend == "torch-x86" and platform.machine() not in ("x86_64", "AMD64"):
        return BackendStatus(backend, version, "its kernels are for x86-64", "use onnxruntime")
    if backend not in ("tensorrt", "tensorrt-rtx"):
        return BackendStatus(backend, version)
    fault = gpu_fault()
    if fault is not None:
        return BackendStatus(backend, version, *fault)
    if importlib.util.find_spec("pycuda") is None:
        return BackendStatus(
            backend,
            version,
            "pycuda is not installed, which runs the engines",
            "pip install pycuda (needs nvcc)",
        )
    return BackendStatus(backend, version)


def installed_version(package: str) -> str | None:
    """A package's version, None where it is not installed or cannot be imported."""
    module = IMPORT_NAMES.get(package, package)
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(package, package))
    except importlib.metadata.PackageNotFoundError:  # installed as tensorrt-cu13, say
        owners = importlib.metadata.packages_distributions().get(module)
        return importlib.metadata.version(owners[0]) if owners else None


def gpu_fault() -> tuple[str, str] | None:
    """Why no NVIDIA GPU can be used here, with what to do; None where one can."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return (
            f"no NVIDIA driver ({name} is not there)",
            "run it on a machine with an NVIDIA GPU and its driver",
        )
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ("the NVIDIA driver does not start", "check it with nvidia-smi")
    if count.value == 0:
        return ("the NVIDIA driver sees no GPU", "check CUDA_VISIBLE_DEVICES and nvidia-smi")
    return None


def _requirement(backend: Backend) -> str:
    return f"'rcompress[{backend}]'" if backend.startswith("tensorrt") else backend
