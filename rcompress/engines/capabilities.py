"""What number formats a processor multiplies in hardware, and what that means in practice."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Support:
    """One number format (or sparsity pattern) on one processor."""

    format: str
    supported: bool
    meaning: str


CPU_RULES: dict[str, tuple[tuple[str, str], ...]] = {
    "FP16": (
        ("avx512_fp16", "at most 2x FP32"),
        ("asimdhp", "at most 2x FP32"),
    ),
    "BF16": (
        ("amx_bf16", "matrix unit: 16x the FP32 rate on paper; training and inference gain"),
        ("avx512_bf16", "at most 2x FP32; training gains as well"),
        ("bf16", "at most 4x FP32"),
    ),
    "INT8": (
        ("amx_int8", "matrix unit, 8x VNNI on paper; layers under 128 channels reach less than half of it"),
        ("avx512_vnni", "at most 4x FP32; unsigned activations are the faster ones"),
        ("avx_vnni", "at most 4x FP32; unsigned activations are the faster ones"),
        ("i8mm", "at most 8x FP32"),
        ("asimddp", "at most 4x FP32"),
    ),
}
"""For each format the instruction sets that multiply in it, the strongest first (vendors' manuals)."""

CPU_WITHOUT = {
    "FP16": "halves the file alone: computed in FP32",
    "BF16": "computed in FP32",
    "INT8": "no dot-product instruction: smaller, but hardly faster than FP32, and 16-bit sums may saturate",
}


def cpu_support(features: Collection[str]) -> tuple[Support, ...]:
    """What a processor with these instruction sets (Linux names) multiplies."""
    found = [_strongest(name, rules, features) for name, rules in CPU_RULES.items()]
    return (
        *found,
        Support("2:4 sparsity", False, "the CPU engines do not use the pattern: it compresses alone"),
    )


def gpu_support(compute_capability: tuple[int, int]) -> tuple[Support, ...]:
    """What an NVIDIA GPU of this compute capability multiplies (CUDA C++ Programming Guide, arithmetic)."""
    tensor_cores = compute_capability >= (7, 0)
    int8_cores = compute_capability >= (7, 2)
    dot_product = compute_capability >= (6, 1) and compute_capability != (6, 2)
    ampere = compute_capability >= (8, 0)
    return (
        Support(
            "FP16", tensor_cores, "tensor cores" if tensor_cores else "no tensor cores: little or no gain"
        ),
        Support("BF16", ampere, "tensor cores" if ampere else "needs SM 8.0"),
        Support("INT8", int8_cores or dot_product, _gpu_int8(int8_cores, dot_product)),
        Support(
            "2:4 sparsity",
            ampere,
            "at most 2x in the layers that have it, less in small networks" if ampere else "needs SM 8.0",
        ),
    )


def _strongest(name: str, rules: tuple[tuple[str, str], ...], features: Collection[str]) -> Support:
    for feature, meaning in rules:
        if feature in features:
            return Support(name, True, f"{feature}: {meaning}")
    return Support(name, False, CPU_WITHOUT[name])


def _gpu_int8(tensor_cores: bool, dot_product: bool) -> str:
    if tensor_cores:
        return "tensor cores, at most 2x FP16; signed activations alone"
    return "dot products, no tensor cores" if dot_product else "needs SM 6.1"
