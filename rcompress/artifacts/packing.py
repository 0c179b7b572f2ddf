"""Packed weights: tensors of few distinct values as codes, losslessly; decoded to a dense state dict on reading.

All tensors share one blob, with their index (deflated JSON) before them: an archive entry for each doubles a small
file. Nothing in a file is trusted: every length is checked before anything of a claimed size is allocated.
"""

from __future__ import annotations

import json
import lzma
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rcompress.artifacts.json_text import parse_json
from rcompress.artifacts.spec import SpecError

DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float32, torch.float16, torch.bfloat16, torch.float64),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}
MAX_CODES = 256
"""Distinct values of a tensor that are worth a table: their indices are bytes."""

MAX_VALUES_PER_BYTE = 64
"""Bounds what a small file can make us allocate; eight is what bits need, the rest is for entropy coding."""

MAX_INDEX_BYTES = 1 << 24

RANGE_CODER = [
    {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 0, "lp": 0, "pb": 0}
    | {"mode": lzma.MODE_NORMAL, "mf": lzma.MF_HC4, "nice_len": 8, "depth": 1}
]
"""LZMA with one context and hardly any matching: an adaptive range coder (tests/benchmarks/DECISIONS.md)."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Entry:
    """One tensor in the blob: ``table_bytes`` of values or scales, then ``code_bytes`` of codes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    codec: str
    table_bytes: int
    code_bytes: int

    @property
    def count(self) -> int:
        """Values of the dense tensor."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of a dense value."""
        return DTYPES[self.dtype].itemsize


def pack(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """The smallest lossless coding of every tensor, as ``{"index_bytes": n, "blob": uint8 tensor}``.

    The blob's first n bytes are the index: name, dtype, shape, codec, bytes of table and of codes for each tensor.

    Raises:
        ValueError: a tensor has a dtype that is not of `DTYPES`.
    """
    index, parts = [], [b""]
    for name, tensor in state_dict.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise ValueError(f"{name} holds {dtype}, which cannot be packed")
        codec, table, codes = _smallest(tensor.detach().cpu().contiguous())
        index.append([name, dtype, list(tensor.shape), codec, len(table), len(codes)])
        parts += [table, codes]
    parts[0] = zlib.compress(json.dumps(index).encode(), 9)
    blob = torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8)
    return {"index_bytes": len(parts[0]), "blob": blob}


def unpack(content: object) -> dict[str, Tensor]:
    """What `pack` was given, bit for bit.

    Raises:
        SpecError: anything in ``content`` is missing, of the wrong type, or contradicts the blob.
    """
    entries, body = _parts(content)
    state, start = {}, 0
    for entry in entries:
        middle, end = start + entry.table_bytes, start + entry.table_bytes + entry.code_bytes
        dense = CODECS[entry.codec](entry, body[start:middle], body[middle:end])
        state[entry.name] = _tensor(entry, dense)
        start = end
    return state


def packed_bytes(content: Mapping[str, Any]) -> int:
    """Bytes of the index and of all tables and codes."""
    return int(content["blob"].numel())


def _smallest(tensor: Tensor) -> tuple[str, bytes, bytes]:
    """(codec, table, codes) of the fewest bytes; of equals the plainest."""
    flat = tensor.reshape(-1).view(torch.uint8).numpy()
    choices = [("raw", flat.tobytes(), b"")]
    words = flat.view(f"u{tensor.element_size()}")
    values = np.unique(words)
    if 1 <= len(values) <= MAX_CODES:
        symbols = np.searchsorted(values, words).astype(np.uint8)
        choices.append(("bits", values.tobytes(), _to_bits(symbols, _width(len(values)))))
        coded = lzma.compress(symbols.tobytes(), lzma.FORMAT_RAW, filters=RANGE_CODER)
        if len(symbols) <= MAX_VALUES_PER_BYTE * len(coded):
            choices.append(("range", values.tobytes(), coded))
    if (scales := _row_scales(tensor)) is not None:
        choices.append(("sign", scales.numpy().tobytes(), _to_bits((tensor > 0).numpy().ravel(), 1)))
    return min(choices, key=lambda choice: len(choice[1]) + len(choice[2]))


def _row_scales(tensor: Tensor) -> Tensor | None:
    """(rows,) float32 if every row along the first axis is plus or minus one positive value."""
    if tensor.dtype != torch.float32 or tensor.dim() < 2 or not tensor.numel():
        return None
    sizes = tensor.abs().flatten(1)
    scales = sizes[:, 0].clone()
    return scales if bool((sizes == scales[:, None]).all() and (scales > 0).all()) else None


def _tensor(entry: Entry, dense: Bytes) -> Tensor:
    dtype = DTYPES[entry.dtype]
    if not entry.count:  # which has no bytes to look at
        return torch.empty(entry.shape, dtype=dtype)
    return torch.from_numpy(dense).view(dtype).reshape(entry.shape)


def _parts(content: object) -> tuple[list[Entry], Bytes]:
    """The entries of the index, and the bytes that follow it."""
    blob = content.get("blob") if isinstance(content, Mapping) else None
    row = isinstance(blob, Tensor) and blob.dtype == torch.uint8 and blob.dim() == 1 and blob.is_contiguous()
    if not isinstance(content, Mapping) or not isinstance(blob, Tensor) or not row:
        raise SpecError("its packed weights are no row of bytes")
    length = content.get("index_bytes")
    if type(length) is not int or not 0 < length <= len(blob):
        raise SpecError("its packed weights have no index")
    body = blob[length:].numpy()
    entries = [_entry(fields, len(body)) for fields in _index(blob[:length].numpy().tobytes())]
    if not entries or len({entry.name for entry in entries}) != len(entries):
        raise SpecError("the index of its packed weights is empty or names a tensor twice")
    if sum(entry.table_bytes + entry.code_bytes for entry in entries) != len(body):
        raise SpecError("its packed weights are not as long as their index says")
    return entries, body


def _index(deflated: bytes) -> list[Any]:
    try:
        inflater = zlib.decompressobj()
        index = parse_json(inflater.decompress(deflated, MAX_INDEX_BYTES))
    except (zlib.error, ValueError):
        index = None
    if not isinstance(index, list):
        raise SpecError("the index of its packed weights is damaged")
    return index


def _entry(fields: object, available: int) -> Entry:
    match fields:
        case [str(name), str(dtype), list(shape), str(codec), int(table), int(codes)] if bool not in (
            type(table),
            type(codes),
        ):
            pass
        case _:
            raise SpecError("the index of its packed weights is damaged")
    if dtype not in DTYPES or codec not in CODECS:
        raise SpecError(f"its packed tensor {name!r} has an unknown type or coding ({dtype}, {codec})")
    if len(shape) > 8 or not all(type(size) is int and size >= 0 for size in shape):
        raise SpecError(f"its packed tensor {name!r} has no proper shape")
    entry = Entry(name, dtype, tuple(shape), codec, table, codes)
    if min(table, codes) < 0 or table + codes > available or any(size > 2**40 for size in shape):
        raise SpecError(f"its packed tensor {name!r} claims more than the file holds")
    if entry.count > MAX_VALUES_PER_BYTE * (table + codes):
        raise SpecError(f"its packed tensor {name!r} claims more values than its codes can hold")
    return entry


def _decode_raw(entry: Entry, table: Bytes, codes: Bytes) -> Bytes:
    if len(codes) or len(table) != entry.count * entry.itemsize:
        raise _contradiction(entry)
    return table.copy()


def _decode_bits(entry: Entry, table: Bytes, codes: Bytes) -> Bytes:
    values = _values(entry, table)
    return _looked_up(entry, values, _from_bits(entry, codes, _width(len(values))))


def _decode_range(entry: Entry, table: Bytes, codes: Bytes) -> Bytes:
    values = _values(entry, table)
    try:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=RANGE_CODER)
        symbols = decoder.decompress(codes.tobytes(), max_length=entry.count + 1)
    except (lzma.LZMAError, EOFError):
        raise _contradiction(entry) from None
    return _looked_up(entry, values, np.frombuffer(symbols, np.uint8))


def _decode_sign(entry: Entry, table: Bytes, codes: Bytes) -> Bytes:
    if entry.dtype != "float32" or len(entry.shape) < 2 or len(table) != 4 * entry.shape[0]:
        raise _contradiction(entry)
    signs = _from_bits(entry, codes, 1).reshape(entry.shape[0], -1)
    scales = table.copy().view(np.float32)[:, None]
    return np.where(signs, scales, -scales).ravel().view(np.uint8)


def _values(entry: Entry, table: Bytes) -> NDArray[Any]:
    if not 1 <= len(table) // entry.itemsize <= MAX_CODES or len(table) % entry.itemsize:
        raise _contradiction(entry)
    return table.copy().view(f"u{entry.itemsize}")


def _looked_up(entry: Entry, values: NDArray[Any], symbols: Bytes) -> Bytes:
    if len(symbols) != entry.count or (len(symbols) and int(symbols.max()) >= len(values)):
        raise _contradiction(entry)
    return values[symbols].view(np.uint8)


def _width(values: int) -> int:
    """Bits of an index into ``values`` values, one at least."""
    return max(1, (values - 1).bit_length())


def _to_bits(symbols: NDArray[Any], width: int) -> bytes:
    rows = np.unpackbits(symbols.astype(np.uint8)[:, None], axis=1, count=width, bitorder="little")
    return np.packbits(rows, bitorder="little").tobytes()


def _from_bits(entry: Entry, codes: Bytes, width: int) -> Bytes:
    if len(codes) != math.ceil(entry.count * width / 8):
        raise _contradiction(entry)
    rows = np.unpackbits(codes, count=entry.count * width, bitorder="little").reshape(-1, width)
    return np.packbits(rows, axis=1, bitorder="little").ravel()


def _contradiction(entry: Entry) -> SpecError:
    return SpecError(f"its packed tensor {entry.name!r} is damaged: codes and shape contradict each other")


Decoder = Callable[[Entry, Bytes, Bytes], Bytes]
CODECS: Mapping[str, Decoder] = {
    "raw": _decode_raw,
    "bits": _decode_bits,
    "range": _decode_range,
    "sign": _decode_sign,
}
"""How codes become values: stored as they are, fixed-width or range-coded indices into a table, signs of scales."""
