"""PyTorch's own deployment formats: TorchScript (``.pt``) and exported programs (``.pt2``)."""

from __future__ import annotations

import io
import json
import warnings

import torch
from torch import Tensor, nn

from rcompress.artifacts.spec import FORMAT, ModelSpec
from rcompress.export.onnx_export import BATCH, example_input, exporting, row_major

METADATA_FILE = "rcompress.json"


def torchscript_bytes(module: nn.Module, spec: ModelSpec) -> bytes:
    """A traced and frozen TorchScript archive with our description inside."""
    example = example_input(spec.preprocessing, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces TorchScript's end; users still deploy it
        with exporting():
            traced = torch.jit.freeze(torch.jit.trace(module.eval(), example))  # type: ignore[no-untyped-call]
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer, _extra_files={METADATA_FILE: _description(spec)})
    return buffer.getvalue()


def exported_program_bytes(module: nn.Module, spec: ModelSpec) -> bytes:
    """A ``torch.export`` archive, batch axis free, with our description inside."""
    example: Tensor = example_input(spec.preprocessing, 2)
    shapes = ({0: torch.export.Dim(BATCH)},)
    with exporting():
        program = torch.export.export(row_major(module.eval()), (example,), dynamic_shapes=shapes)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA_FILE: _description(spec)})
    return buffer.getvalue()


def _description(spec: ModelSpec) -> str:
    return json.dumps({"format": FORMAT, "model": spec.to_dict()})
