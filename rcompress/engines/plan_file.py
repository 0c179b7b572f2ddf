"""TensorRT engines on disk: plans as vendor tools open them, and ``NAME.plan.json`` beside them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rcompress.artifacts.files import require_file, sha256_of, write_atomic
from rcompress.artifacts.json_text import parse_json
from rcompress.artifacts.onnx_file import parse_description
from rcompress.artifacts.spec import FORMAT, ModelSpec
from rcompress.errors import RcompressError

PlanBackend = Literal["tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True)
class Sidecar:
    """What is known of a plan without opening it.

    Attributes:
        backend, version: what built it, and what can load it.
        target: the GPU it was built for (``sm_86``), None: the one of that machine.
        batch_range: smallest, usual and largest batch.
        layers: convolution and matrix layers by precision, as the builder reported them.
        plan_sha256: of the plan's bytes.
        spec: the network's description, None for a foreign graph.
    """

    backend: PlanBackend
    version: str
    target: str | None
    batch_range: tuple[int, int, int]
    layers: dict[str, int]
    plan_sha256: str
    spec: ModelSpec | None

    def facts(self) -> dict[str, Any]:
        """The builder's facts, for people."""
        return {
            "version": self.version,
            "built for": self.target or "the GPU of the machine it was built on",
            "batch range": ":".join(map(str, self.batch_range)),
            "layers": ", ".join(f"{count} in {precision}" for precision, count in self.layers.items()),
        }


def sidecar_path(plan: Path) -> Path:
    """``NAME.plan.json`` for ``NAME.plan``."""
    return plan.with_name(f"{plan.name}.json")


def log_path(plan: Path) -> Path:
    """``NAME.plan.log``: what the builder said."""
    return plan.with_name(f"{plan.name}.log")


def write_plan(plan: Path, content: bytes, sidecar: Sidecar, log: str) -> Path:
    """Write log, sidecar and, last, the plan; each atomically."""
    fields = asdict(sidecar) | {"spec": None}
    described = None if sidecar.spec is None else sidecar.spec.to_dict()
    write_atomic(log_path(plan), log.encode())
    text = json.dumps({"format": FORMAT, "engine": fields, "model": described}, indent=1)
    write_atomic(sidecar_path(plan), (text + "\n").encode())
    return write_atomic(plan, content)


def read_sidecar(plan: Path) -> Sidecar:
    """Read the sidecar of ``plan`` and see that the two belong together.

    Raises:
        RcompressError: either is missing or damaged.
    """
    require_file(plan)
    path = sidecar_path(plan)
    if not path.exists():
        raise RcompressError(
            plan,
            f"{path.name} is missing, which says what built it",
            "put it back (eval and bench take --backend instead)",
        )
    require_file(path)
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        engine = dict(content["engine"])
        if engine["backend"] not in get_args(PlanBackend):
            raise ValueError("unknown backend")
        smallest, usual, largest = (int(size) for size in engine["batch_range"])
        found = Sidecar(
            backend=engine["backend"],
            version=str(engine["version"]),
            target=engine["target"],
            batch_range=(smallest, usual, largest),
            layers={str(name): int(count) for name, count in engine["layers"].items()},
            plan_sha256=str(engine["plan_sha256"]),
            spec=None if content["model"] is None else parse_description(path, json.dumps(content)),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RcompressError(path, "is truncated or no sidecar of a plan", "build the engine again") from None
    if sha256_of(plan) != found.plan_sha256:
        raise RcompressError(
            plan, f"is truncated or does not belong to {path.name}", "build the engine again"
        )
    return found
