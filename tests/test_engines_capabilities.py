"""What processors multiply, by the vendors' own tables."""

from __future__ import annotations

import pytest

from rcompress.engines.capabilities import cpu_support, gpu_support

GPUS = {
    (6, 0): (),
    (6, 1): ("INT8",),
    (6, 2): (),
    (7, 0): ("FP16", "INT8"),
    (7, 5): ("FP16", "INT8"),
    (8, 0): ("FP16", "BF16", "INT8", "2:4 sparsity"),
    (8, 6): ("FP16", "BF16", "INT8", "2:4 sparsity"),
    (9, 0): ("FP16", "BF16", "INT8", "2:4 sparsity"),
    (12, 0): ("FP16", "BF16", "INT8", "2:4 sparsity"),
}
CPUS = {
    "Haswell": (("avx2",), ()),
    "Skylake-X": (("avx2", "avx512f"), ()),
    "Alder Lake": (("avx2", "avx_vnni"), ("INT8",)),
    "Zen 4": (("avx2", "avx512f", "avx512_vnni", "avx512_bf16"), ("BF16", "INT8")),
    "Sapphire Rapids": (
        ("avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
        ("FP16", "BF16", "INT8"),
    ),
    "Graviton 3": (("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve"), ("FP16", "BF16", "INT8")),
}


@pytest.mark.parametrize("capability", GPUS)
def test_gpus(capability):
    assert tuple(s.format for s in gpu_support(capability) if s.supported) == GPUS[capability]


@pytest.mark.parametrize("name", CPUS)
def test_cpus(name):
    features, formats = CPUS[name]
    assert tuple(s.format for s in cpu_support(features) if s.supported) == formats


def test_the_strongest_instruction_set_is_named():
    found = {support.format: support.meaning for support in cpu_support(CPUS["Sapphire Rapids"][0])}
    assert found["INT8"].startswith("amx_int8")
    assert found["BF16"].startswith("amx_bf16")


def test_every_format_says_what_it_means():
    for support in (*cpu_support(()), *gpu_support((5, 0))):
        assert support.meaning and not support.supported
