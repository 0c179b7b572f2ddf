"""Where PyTorch computes."""

from __future__ import annotations

import torch

from rcompress.errors import RcompressError


def resolve_device(name: str) -> torch.device:
    """``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        RcompressError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RcompressError(name, "no such kind of device", "use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise RcompressError(name, "no such kind of device", "use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RcompressError(
            name, f"this machine shows {torch.cuda.device_count()} CUDA devices", "use --device cpu"
        )
    return device


def device_name(name: str) -> str:
    """A device in words: ``cpu`` or the GPU's name."""
    device = resolve_device(name)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
