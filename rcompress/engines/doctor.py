"""What this machine can run: processor, GPUs, backends, data, and what to choose from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from rcompress.artifacts.machine import cpu_features, cpu_multiplies_bf16, machine_summary, package_versions
from rcompress.data.catalog import default_data_dir
from rcompress.engines.base import Backend, BackendStatus
from rcompress.engines.capabilities import Support, cpu_support, gpu_support
from rcompress.engines.status import available_backends, gpu_fault

DATA_LAYOUTS = {
    "cifar10": ("cifar10/*.parquet", "cifar-10-batches-py"),
    "cifar100": ("cifar100/*.parquet", "cifar-100-python"),
    "tiny-imagenet": ("tiny-imagenet-200/train",),
}
GPU_BACKENDS: tuple[Backend, ...] = ("tensorrt", "tensorrt-rtx")
INT8_FEATURES = {"amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp"}


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU; ``driver`` is None where nvidia-ml-py is not installed to ask."""

    name: str
    compute_capability: str
    memory_bytes: int
    driver: str | None
    supports: tuple[Support, ...]


@dataclass(frozen=True)
class Advice:
    """Defaults for this machine, with the reason."""

    backend: Backend
    precision: str
    training_precision: str
    reason: str


@dataclass(frozen=True)
class Checkup:
    """All that was found.

    Attributes:
        machine: see `machine_summary`.
        memory_bytes: the machine's RAM.
        cpu: formats that the processor multiplies.
        gpus: usable GPUs; where there are none, ``gpu_fault`` says why.
        backends: every backend, usable or not.
        data_dir: where datasets are looked for.
        datasets: name of each set to the place where it lies, None where it does not.
        versions: of the packages that matter.
        advice: what to choose.
    """

    machine: dict[str, Any]
    memory_bytes: int
    cpu: tuple[Support, ...]
    gpus: tuple[Gpu, ...]
    gpu_fault: str | None
    backends: tuple[BackendStatus, ...]
    data_dir: str
    datasets: dict[str, str | None]
    versions: dict[str, str]
    advice: Advice

    def to_dict(self) -> dict[str, Any]:
        """Primitives, for --json."""
        found = asdict(self)
        for status, entry in zip(self.backends, found["backends"], strict=True):
            entry["usable"] = status.usable
        return found


def examine(data_dir: Path | None = None) -> Checkup:
    """Look at the machine; nothing is changed, nothing is downloaded."""
    root = data_dir or default_data_dir()
    gpus = find_gpus()
    backends = available_backends()
    return Checkup(
        machine=machine_summary(),
        memory_bytes=int(psutil.virtual_memory().total),
        cpu=cpu_support(cpu_features()),
        gpus=gpus,
        gpu_fault=None if gpus else _why_no_gpu(),
        backends=backends,
        data_dir=str(root),
        datasets={name: _first_match(root, layouts) for name, layouts in DATA_LAYOUTS.items()},
        versions=package_versions(),
        advice=advise(cpu_features(), gpus, backends),
    )


def find_gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that PyTorch can use."""
    return tuple(_gpu(index) for index in range(torch.cuda.device_count()))


def advise(features: Sequence[str], gpus: Sequence[Gpu], backends: Sequence[BackendStatus]) -> Advice:
    """The backend and precision to begin with, from what is there."""
    usable = {status.backend for status in backends if status.usable}
    training = "bf16" if gpus or cpu_multiplies_bf16() else "fp32"
    for on_gpu in GPU_BACKENDS:
        if gpus and on_gpu in usable:
            return Advice(on_gpu, "int8", training, f"a GPU and {on_gpu} are here")
    backend: Backend = "openvino" if "openvino" in usable else "onnxruntime"
    hint = "; for the GPU install TensorRT" if gpus else ""
    if INT8_FEATURES & set(features):
        return Advice(backend, "int8", training, f"the CPU has INT8 dot products{hint}")
    return Advice(
        backend, "fp32", training, f"the CPU has no INT8 dot products: measure before using int8{hint}"
    )


def _gpu(index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    capability = (properties.major, properties.minor)
    return Gpu(
        name=properties.name,
        compute_capability=f"{properties.major}.{properties.minor}",
        memory_bytes=properties.total_memory,
        driver=_driver_version(),
        supports=gpu_support(capability),
    )


def _driver_version() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except (ImportError, OSError):
        return None
    except pynvml.NVMLError:
        return None


def _why_no_gpu() -> str:
    fault = gpu_fault()
    if fault is not None:
        return fault[0]
    return f"there is one, but PyTorch {torch.__version__} cannot use it: no CUDA in it, or too old a driver"


def _first_match(root: Path, layouts: Sequence[str]) -> str | None:
    for layout in layouts:
        found = sorted(root.glob(layout))
        if found:
            return str(found[0].parent if found[0].is_file() else found[0])
    return None
