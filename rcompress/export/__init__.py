"""Modules written in the formats that engines read."""

from rcompress.export.onnx_export import Exported, export_onnx, onnx_from_module
from rcompress.export.torch_formats import exported_program_bytes, torchscript_bytes

__all__ = ["Exported", "export_onnx", "exported_program_bytes", "onnx_from_module", "torchscript_bytes"]
