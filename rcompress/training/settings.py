"""Where and how a run computes; unlike the recipe, meant to change the weights by rounding at most."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

import torch

from rcompress.artifacts.machine import cpu_multiplies_bf16
from rcompress.errors import RcompressError
from rcompress.training.processes import ALONE, Processes

PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]
COMPUTE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """Device, number format of the arithmetic, ``torch.compile``, seed, and who else trains the same network."""

    device: torch.device
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    seed: int = 0
    processes: Processes = ALONE
    sync_batchnorm: bool = False

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Mixed precision as `precision` says; a null context for FP32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, COMPUTE_DTYPES[self.precision])


def resolve_precision(choice: PrecisionChoice, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """``auto`` is BF16 on GPUs and on processors that multiply in BF16 (AMX, AVX-512), FP32 elsewhere.

    Raises:
        RcompressError: FP16 on a CPU, where gradients underflow and nothing is gained.
    """
    if choice == "fp16" and device.type != "cuda":
        raise RcompressError("--precision fp16", "trains on GPUs only", "use bf16 or fp32 on a CPU")
    if choice != "auto":
        return choice
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if cpu_multiplies_bf16() else "fp32"
