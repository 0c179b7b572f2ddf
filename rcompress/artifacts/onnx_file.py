"""ONNX files: one file, no external data, our description in ``metadata_props``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import onnx

from rcompress.artifacts.files import require_file, sha256_of, write_atomic
from rcompress.artifacts.json_text import parse_json
from rcompress.artifacts.onnx_form import plain_form
from rcompress.artifacts.spec import FORMAT, ModelSpec, SpecError
from rcompress.errors import RcompressError

METADATA_KEY = "rcompress"


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file as read; ``spec`` is None where the file was not written by rcompress."""

    path: Path
    model: onnx.ModelProto
    spec: ModelSpec | None
    sha256: str


def write_onnx(path: Path, model: onnx.ModelProto, spec: ModelSpec) -> Path:
    """Stamp ``spec`` into a copy of ``model`` and write it atomically."""
    stamped = onnx.ModelProto()
    stamped.CopyFrom(model)
    stamp(stamped, spec)
    return write_atomic(path, stamped.SerializeToString())


def write_graph(path: Path, model: onnx.ModelProto, spec: ModelSpec | None) -> Path:
    """As `write_onnx`, or without a description where there is none."""
    return write_atomic(path, model.SerializeToString()) if spec is None else write_onnx(path, model, spec)


def stamp(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Put ``spec`` into ``model.metadata_props`` in place of any earlier one."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    kept.append((METADATA_KEY, json.dumps({"format": FORMAT, "model": spec.to_dict()})))
    for key, value in kept:
        model.metadata_props.add(key=key, value=value)


def read_onnx(path: Path) -> OnnxFile:
    """Read and check an ONNX file, and bring its graph into `plain_form`; data outside the file is refused.

    Raises:
        RcompressError: missing, truncated, not ONNX, with external data, or with a broken description.
    """
    require_file(path)
    try:
        model = onnx.load_model(path, load_external_data=False)
        if not model.graph.node:
            raise ValueError("no nodes")
        model = plain_form(model)
        if any(tensor.external_data for tensor in model.graph.initializer):
            raise RcompressError(
                path, "keeps its weights in another file", "save it as one file (save_as_external_data=False)"
            )
        onnx.checker.check_model(model)
    except RcompressError:
        raise
    except Exception:  # protobuf, the checker and onnx each raise their own kinds
        raise RcompressError(path, "is truncated or not an ONNX model", "export it again") from None
    return OnnxFile(path, model, spec_of(path, model), sha256_of(path))


def spec_of(path: Path, model: onnx.ModelProto) -> ModelSpec | None:
    """The description stamped into ``model``, None where there is none.

    Raises:
        RcompressError: there is one, but it is broken.
    """
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            return parse_description(path, entry.value)
    return None


def parse_description(path: Path, text: str) -> ModelSpec:
    """A description (``{"format": ..., "model": ...}`` as JSON), as ONNX files and sidecars hold it.

    Raises:
        RcompressError: it is not ours or is broken.
    """
    try:
        content = parse_json(text)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise SpecError(f"its description is not in the format {FORMAT}")
        return ModelSpec.from_dict(content.get("model"))
    except ValueError as error:
        raise RcompressError(path, f"broken description ({error})", "write it again with rcompress") from None
