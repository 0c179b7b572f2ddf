"""Everything an artifact tells of itself, without running it on data."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rcompress.artifacts.files import require_file, sha256_of
from rcompress.artifacts.onnx_file import read_onnx
from rcompress.artifacts.spec import CHECKPOINT_SUFFIXES, ModelSpec
from rcompress.engines import load_engine
from rcompress.engines.base import RunOptions
from rcompress.engines.graph_io import opset_of
from rcompress.errors import RcompressError
from rcompress.measure.complexity import LayerCost, graph_complexity, module_complexity
from rcompress.measure.static import file_metrics
from rcompress.models import load_model


@dataclass(frozen=True)
class Inspection:
    """What `inspect_file` found.

    Attributes:
        kind: the artifact's kind, in words.
        metrics: ``size_bytes``, ``weights_bytes``, ``parameters``, ``nonzero_parameters``, ``macs``, where known.
        facts: further properties by name (operators, opset, executed layers).
        layers: one mapping a layer: name, kind, output_shape, parameters, macs.
    """

    path: Path
    kind: str
    sha256: str
    metrics: dict[str, int]
    spec: ModelSpec | None
    facts: dict[str, Any] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Primitives."""
        described = self.spec.to_dict() if self.spec else None
        return {
            "path": str(self.path),
            "kind": self.kind,
            "sha256": self.sha256,
            "metrics": self.metrics,
            "facts": self.facts,
            "model": described,
            "layers": self.layers,
            "notes": self.notes,
        }


def inspect_file(path: Path, arch: str | None = None) -> Inspection:
    """Read any artifact; its suffix says which kind.

    Raises:
        RcompressError: missing, damaged, or of no kind that we know.
    """
    require_file(path)
    readers = {".onnx": _onnx, ".xml": _openvino, ".plan": _plan}
    if path.suffix in CHECKPOINT_SUFFIXES:
        return _checkpoint(path, arch)
    if path.suffix == ".x86":
        return _loaded(path, "PyTorch x86 engine", arch)
    if path.suffix not in readers:
        raise RcompressError(
            path,
            f"{path.suffix or 'no suffix'}: unknown kind of artifact",
            "give a .pth, .onnx, .xml, .plan or .x86",
        )
    return readers[path.suffix](path)


def _checkpoint(path: Path, arch: str | None) -> Inspection:
    loaded = load_model(path, arch)
    costs = module_complexity(loaded.module, loaded.spec.preprocessing.input_size)
    metrics = file_metrics(path, loaded.spec, arch)
    kind = "PyTorch checkpoint" + (", weights as codes" if loaded.packed_bytes is not None else "")
    return Inspection(path, kind, loaded.sha256, metrics, loaded.spec, layers=_rows(costs.layers))


def _onnx(path: Path) -> Inspection:
    read = read_onnx(path)
    facts = {
        "opset": opset_of(read.model),
        "operators": ", ".join(
            f"{n} {op}" for op, n in Counter(node.op_type for node in read.model.graph.node).most_common()
        ),
    }
    notes = [] if read.spec else ["not written by rcompress: it says nothing of its preprocessing or history"]
    layers = _rows(graph_complexity(read.model).layers)
    return Inspection(
        path, "ONNX graph", read.sha256, file_metrics(path, read.spec), read.spec, facts, layers, notes
    )


def _openvino(path: Path) -> Inspection:
    return _loaded(path, "OpenVINO engine")


def _loaded(path: Path, kind: str, arch: str | None = None) -> Inspection:
    """Of an engine that tells when it is loaded."""
    info = load_engine(path, None, RunOptions(threads=1, arch=arch)).info
    facts = {"executes here": _executed(info.executed)}
    return Inspection(path, kind, info.sha256, file_metrics(path, info.spec, arch), info.spec, facts)


def _plan(path: Path) -> Inspection:
    from rcompress.engines.plan_file import read_sidecar

    sidecar = read_sidecar(path)
    facts = {"backend": sidecar.backend, **sidecar.facts()}
    return Inspection(
        path, "TensorRT engine", sha256_of(path), file_metrics(path, sidecar.spec), sidecar.spec, facts
    )


def _executed(executed: dict[str, int]) -> str:
    return ", ".join(f"{count} layers in {precision}" for precision, count in executed.items())


def _rows(layers: tuple[LayerCost, ...]) -> list[dict[str, Any]]:
    return [asdict(layer) for layer in layers]
