"""Packed weights: lossless and small; nothing that the index of a file claims is believed."""

from __future__ import annotations

import contextlib
import json
import math
import zlib

import pytest
import torch

from rcompress.artifacts.checkpoint import read_checkpoint, write_checkpoint
from rcompress.artifacts.packing import MAX_VALUES_PER_BYTE, pack, unpack
from rcompress.artifacts.spec import ModelSpec, Preprocessing, SpecError
from rcompress.errors import RcompressError

SPEC = ModelSpec(2, Preprocessing((3, 8, 8), (0.5,) * 3, (0.25,) * 3), "resnet20")


def state():
    """One tensor for each coding, and the shapes and types that a state dict can hold."""
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(5, generator=generator)
    skewed = torch.randint(2000, (64, 16, 3, 3), generator=generator).clamp(max=15).float()
    signs = torch.randn(40, 9, 5, generator=generator).sign()
    return {
        "raw.weight": torch.randn(7, 3, generator=generator),
        "bits.weight": few[torch.randint(5, (16, 3, 3), generator=generator)],
        "range.weight": skewed,
        "sign.weight": signs * torch.rand(40, 1, 1, generator=generator).add(0.1),
        "plus-minus-one.weight": signs,
        "count": torch.tensor(3),
        "empty": torch.empty(0, 4),
        "half": torch.randn(4, generator=generator).bfloat16(),
        "flags": torch.tensor([True, False] * 9),
        "constant": torch.zeros(100_000),
        "odd": torch.tensor([[math.nan, -0.0], [0.0, math.inf]]),
    }


def opened(packed):
    """(index, the bytes that follow it)."""
    length = packed["index_bytes"]
    return json.loads(zlib.decompress(packed["blob"][:length].numpy().tobytes())), packed["blob"][length:]


def closed(index, body):
    return headed(json.dumps(index).encode(), body)


def headed(text, body=torch.zeros(0).byte()):
    head = zlib.compress(text)
    return {"index_bytes": len(head), "blob": torch.cat([torch.tensor(list(head)).byte(), body])}


def codecs(packed):
    return {name: codec for name, _, _, codec, _, _ in opened(packed)[0]}


def body_bytes(tensor):
    return len(opened(pack({"w": tensor}))[1])


def bits_of(tensor):
    return tensor.reshape(-1).view(torch.uint8) if tensor.numel() else tensor


def test_every_coding_is_lossless():
    given = state()
    packed = pack(given)
    chosen = codecs(packed)
    assert [chosen[f"{name}.weight"] for name in ("raw", "bits", "range", "sign")] == [
        "raw",
        "bits",
        "range",
        "sign",
    ]
    read = unpack(packed)
    assert list(read) == list(given)
    for name, tensor in given.items():
        assert (read[name].shape, read[name].dtype) == (tensor.shape, tensor.dtype), name
        assert torch.equal(bits_of(read[name]), bits_of(tensor)), name


def test_sizes_are_those_of_the_codes():
    """Signs: a bit a weight; 256 values: a byte at most; skewed ones: near their entropy."""
    generator = torch.Generator().manual_seed(0)
    count = 64 * 64 * 9
    signs = torch.randn(64, 64, 3, 3, generator=generator).sign()
    assert body_bytes(signs) == count // 8 + 2 * 4
    assert body_bytes(signs * torch.rand(64, 1, 1, 1).add(1)) == count // 8 + 64 * 4
    table = torch.randn(256, generator=generator)
    even = table[torch.randint(256, (64, 64, 3, 3), generator=generator)]
    assert body_bytes(even) == count + 256 * 4
    symbols = torch.randn(64, 64, 3, 3, generator=generator).mul(4).round().clamp(-16, 15)
    shares = torch.bincount(symbols.long().flatten() + 16) / count
    entropy = -float((shares[shares > 0] * shares[shares > 0].log2()).sum()) * count / 8
    assert body_bytes(symbols) < 1.08 * entropy + 32 * 4


def test_a_packed_checkpoint_reads_as_a_dense_one(tmp_path):
    given = {name: tensor for name, tensor in state().items() if name != "odd"}
    dense = write_checkpoint(tmp_path / "dense.pth", SPEC, given)
    packed = write_checkpoint(tmp_path / "packed.pth", SPEC, given, packed=True)
    read = read_checkpoint(packed)
    assert all(torch.equal(read.state_dict[name], tensor) for name, tensor in given.items())
    assert read.packed_bytes is not None and read_checkpoint(dense).packed_bytes is None
    assert read.spec == SPEC
    assert read.packed_bytes < packed.stat().st_size < dense.stat().st_size / 8


def forged(position, value, tensor="bits.weight"):
    """The packed state with one field of one entry changed."""
    index, body = opened(pack(state()))
    next(fields for fields in index if fields[0] == tensor)[position] = value
    return closed(index, body)


SMALL = {name: tensor for name, tensor in state().items() if tensor.numel() < 10_000}
FORGERIES = {
    "unknown dtype": forged(1, "complex64"),
    "other dtype": forged(1, "float64"),
    "huge shape": forged(2, [10**6, 10**6]),
    "absurd shape": forged(2, [10**30]),
    "negative shape": forged(2, [-16, 3, 3]),
    "shape of truth values": forged(2, [True, 3, 3]),
    "one more": forged(2, [16, 3, 4]),
    "one more, range": forged(2, [64, 16, 3, 4], "range.weight"),
    "fewer, range": forged(2, [64, 16, 3, 2], "range.weight"),
    "rows, sign": forged(2, [20, 9, 10], "sign.weight"),
    "no rows, sign": forged(2, [1800], "sign.weight"),
    "unknown codec": forged(3, "exec"),
    "raw codec": forged(3, "raw"),
    "sign codec": forged(3, "sign"),
    "range codec": forged(3, "range"),
    "no table": forged(4, 0),
    "table longer than the file": forged(4, 10**12),
    "negative table": forged(4, -4),
    "codes longer than the file": forged(5, 10**12),
    "a name twice": forged(0, "raw.weight"),
    "a name that is none": forged(0, 7),
    "no index": {"blob": torch.zeros(3, dtype=torch.uint8)},
    "empty index": closed([], torch.zeros(0).byte()),
    "index of another kind": closed({"w": 1}, torch.zeros(4).byte()),
    "entry of two": closed([["w", "float32"]], torch.zeros(4).byte()),
    "deep index": headed(b"[" * 10**5),
    "index that inflates": headed(bytes(2**26)),
    "index longer than the file": pack(state()) | {"index_bytes": 10**9},
    "index of no length": pack(state()) | {"index_bytes": "all"},
    "floats for bytes": pack(state()) | {"blob": torch.zeros(8)},
    "expanded blob": pack(state()) | {"blob": torch.zeros(1, dtype=torch.uint8).expand(10**9)},
    "truncated blob": pack(state()) | {"blob": pack(state())["blob"][:-1].clone()},
    "longer blob": pack(state()) | {"blob": torch.cat([pack(state())["blob"], torch.zeros(1).byte()])},
    "no mapping": [1, 2],
}


@pytest.mark.parametrize("content", FORGERIES.values(), ids=FORGERIES.keys())
def test_forged_indices_are_refused(tmp_path, content):
    with pytest.raises(SpecError):
        unpack(content)
    path = tmp_path / "m.pth"
    torch.save({"format": "rcompress/1", "model": SPEC.to_dict(), "packed": content}, path)
    with pytest.raises(RcompressError, match=r"m\.pth: "):
        read_checkpoint(path)


def test_indices_beyond_the_table_are_refused():
    packed = pack({"w": torch.tensor([[1.0, 2.0, 3.0, 3.0, 1.0]])})
    assert codecs(packed)["w"] == "bits"
    index, body = opened(packed)
    body[3 * 4 :] = 255
    with pytest.raises(SpecError, match="contradict"):
        unpack(closed(index, body))


def test_a_bomb_is_refused_before_it_goes_off():
    """A megabyte of zeros takes some dozens of bytes: a file that claims such a rate is not decoded."""
    import lzma

    from rcompress.artifacts.packing import RANGE_CODER

    count = 2**26
    codes = lzma.compress(bytes(count), lzma.FORMAT_RAW, filters=RANGE_CODER)
    body = torch.frombuffer(bytearray(bytes(4) + codes), dtype=torch.uint8)
    assert count > MAX_VALUES_PER_BYTE * len(body)
    with pytest.raises(SpecError, match="more values than its codes"):
        unpack(closed([["w", "float32", [count], "range", 4, len(codes)]], body))


def test_random_damage_never_escapes_as_anything_else():
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        index, body = opened(pack(SMALL))
        entry = index[int(torch.randint(len(index), (), generator=generator))]
        entry[4 + int(torch.randint(2, (), generator=generator))] += int(
            torch.randint(-9, 9, (), generator=generator)
        )
        where = torch.randint(len(body), (20,), generator=generator)
        body[where] = torch.randint(256, (20,), generator=generator).byte()
        with contextlib.suppress(SpecError):
            unpack(closed(index, body))


def test_random_damage_of_the_whole_blob_neither():
    generator = torch.Generator().manual_seed(2)
    whole = pack(SMALL)
    for _ in range(200):
        where = torch.randint(len(whole["blob"]), (5,), generator=generator)
        damaged = whole["blob"].index_put((where,), torch.randint(256, (5,), generator=generator).byte())
        with contextlib.suppress(SpecError):
            unpack(whole | {"blob": damaged})


def test_a_type_that_cannot_be_packed_is_named():
    with pytest.raises(ValueError, match="phase holds complex64"):
        pack({"phase": torch.zeros(2, dtype=torch.complex64)})
