"""The tensors inside a network while it runs, and how far those of two networks lie apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from torch import Tensor

from rcompress.engines.base import Array, Engine, FloatArray, RunOptions
from rcompress.engines.evaluation import run_padded
from rcompress.engines.ov import open_network
from rcompress.engines.torch_graph import TorchGraph
from rcompress.errors import RcompressError


class Probe(Protocol):
    """Something that runs and shows tensors inside."""

    def shows(self, name: str) -> bool:
        """Whether it can show the tensor of this name."""

    def run(self, images: Array, names: Sequence[str]) -> Mapping[str, FloatArray]:
        """The tensors called ``names`` for a batch of network inputs."""


class GraphProbe:
    """An ONNX graph in the PyTorch executor, node by node as it stands, nothing fused."""

    def __init__(self, model: onnx.ModelProto, subject: str) -> None:
        self._graph = TorchGraph(model, subject).eval()
        self._made = {name for node in model.graph.node for name in node.output}

    def shows(self, name: str) -> bool:
        """See `Probe`."""
        return name in self._made

    def run(self, images: Array, names: Sequence[str]) -> Mapping[str, FloatArray]:
        found: dict[str, FloatArray] = {}
        wanted = set(names)

        def observe(name: str, value: Tensor) -> None:
            if name in wanted:
                found[name] = value.float().numpy()

        with torch.inference_mode():
            self._graph(torch.from_numpy(images), observe)
        return found


class OpenVinoProbe:
    """An OpenVINO engine, its tensors made outputs: that may undo a fusion, but changes no value's meaning."""

    def __init__(self, path: Path, options: RunOptions) -> None:
        self._path = path
        self._network, self._settings = open_network(path, options)
        self.output = self._network.output(0).get_any_name()
        self._names = {
            name
            for node in self._network.get_ordered_ops()
            for port in node.outputs()
            for name in port.get_names()
        }
        self._compiled: tuple[tuple[str, ...], Any] | None = None

    def shows(self, name: str) -> bool:
        return name in self._names

    def run(self, images: Array, names: Sequence[str]) -> Mapping[str, FloatArray]:
        results = self._with_outputs(tuple(names))(images, share_inputs=True)
        named = {name: values for port, values in results.items() for name in port.get_names()}
        return {name: np.asarray(named[name], dtype=np.float32) for name in names}

    def _with_outputs(self, names: tuple[str, ...]) -> Any:
        import openvino

        if self._compiled is None or self._compiled[0] != names:
            network = self._network.clone()
            existing = {name for port in network.outputs for name in port.get_names()}
            network.add_outputs([name for name in names if name not in existing])
            try:
                compiled = openvino.Core().compile_model(network, "CPU", self._settings)
            except RuntimeError:
                raise RcompressError(
                    self._path,
                    "OpenVINO cannot show its inner tensors",
                    "diagnose the .onnx it was built from",
                ) from None
            self._compiled = names, compiled
        return self._compiled[1]


class OutputProbe:
    """An engine that shows its logits alone, under ``name``."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self._name = engine, name

    def shows(self, name: str) -> bool:
        return name == self._name

    def run(self, images: Array, names: Sequence[str]) -> Mapping[str, FloatArray]:
        return {name: run_padded(self._engine, images) for name in names}


class Distance:
    """How far values lie from a reference, streaming: nothing but sums is kept."""

    def __init__(self) -> None:
        self._signal = self._noise = self._power = self._product = self._largest = 0.0

    def add(self, reference: FloatArray, values: FloatArray) -> None:
        """Take in one batch; both arrays have the same shape."""
        mine, theirs = values.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
        error = mine - theirs
        self._signal += float(theirs @ theirs)
        self._noise += float(error @ error)
        self._power += float(mine @ mine)
        self._product += float(mine @ theirs)
        self._largest = max(self._largest, float(np.abs(error).max(initial=0.0)))

    @property
    def snr_db(self) -> float:
        """Signal-to-noise ratio, 10 log10 of the powers' ratio, in dB.

        Infinite where there is no noise at all, minus infinity where there is nothing else, or a value is not finite.
        """
        if self._noise == 0.0:
            return math.inf
        if not self._signal or not math.isfinite(self._noise):
            return -math.inf
        return 10.0 * math.log10(self._signal / self._noise)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two; 1 where both are zero."""
        lengths = math.sqrt(self._signal * self._power)
        return self._product / lengths if lengths else float(self._signal == self._power)

    @property
    def max_abs_error(self) -> float:
        """The largest difference of two values, in the tensor's own units."""
        return self._largest

    def metrics(self) -> dict[str, float | None]:
        """Primitives for JSON, which knows finite numbers alone: None in place of others."""
        found = {"snr_db": self.snr_db, "cosine": self.cosine, "max_abs_error": self.max_abs_error}
        return {name: value if math.isfinite(value) else None for name, value in found.items()}
