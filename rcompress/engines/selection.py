"""Which backend builds an engine where the user leaves it open."""

from __future__ import annotations

from pathlib import Path

from rcompress.engines.base import Backend, Suffix
from rcompress.engines.status import backend_status, installed_version
from rcompress.errors import RcompressError

GRAPH_SUFFIXES: dict[Backend, Suffix] = {
    "onnxruntime": ".onnx",
    "openvino": ".xml",
    "tensorrt": ".plan",
    "tensorrt-rtx": ".plan",
}
"""The backends that build an ONNX graph in any precision, and what their engines are called."""

SUFFIXES: dict[Backend, Suffix] = {"torch-x86": ".x86", **GRAPH_SUFFIXES}


def choose_backend(requested: Backend | None, output: Path | None) -> Backend:
    """The backend to build with.

    Args:
        requested: the user's own choice; it must fit the suffix of ``output``.
        output: the file to write, where its name is given: its suffix decides.

    Returns:
        Where neither says: TensorRT where it and a GPU are there, else OpenVINO.

    Raises:
        RcompressError: the suffix is no engine's, does not fit, or no installed backend writes it.
    """
    if requested is not None:
        _require_suffix(requested, output)
        return requested
    if output is None:
        return "tensorrt" if backend_status("tensorrt").usable else "openvino"
    fitting = [backend for backend, suffix in SUFFIXES.items() if suffix == output.suffix]
    if not fitting:
        raise RcompressError(
            output, f"{output.suffix or 'no suffix'}: no engine is called so", _suffix_help()
        )
    for backend in fitting:
        if installed_version(backend) is not None:
            return backend
    raise RcompressError(output, f"needs {' or '.join(fitting)}", "pip install 'rcompress[tensorrt]'")


def _require_suffix(backend: Backend, output: Path | None) -> None:
    if backend not in SUFFIXES:
        raise RcompressError(backend, "has no engine files", f"use --backend {', '.join(SUFFIXES)}")
    if output is not None and output.suffix != SUFFIXES[backend]:
        raise RcompressError(
            output, f"is no name for {backend}", f"call it {output.with_suffix(SUFFIXES[backend]).name}"
        )


def _suffix_help() -> str:
    return "use .xml (OpenVINO), .onnx (ONNX Runtime), .plan (TensorRT) or .x86 (PyTorch)"
