"""Classes of single images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rcompress.data import network_inputs
from rcompress.data.folder import read_image
from rcompress.engines.base import Engine
from rcompress.engines.evaluation import run_padded
from rcompress.errors import RcompressError


@dataclass(frozen=True)
class Guess:
    """A class and its probability (softmax of the logits)."""

    class_name: str
    probability_percent: float


def predict(engine: Engine, images: Sequence[Path], top: int = 5) -> dict[Path, list[Guess]]:
    """The ``top`` most likely classes of each image file, prepared as the artifact says.

    Raises:
        RcompressError: the artifact does not say how images are prepared, or a file is no image.
    """
    spec = engine.info.spec
    if spec is None:
        raise RcompressError(
            engine.info.path, "does not say how its images are prepared", "use a file written by rcompress"
        )
    found = {}
    for path in images:
        inputs = network_inputs(read_image(path, spec.preprocessing), spec.preprocessing)
        logits = torch.from_numpy(np.asarray(run_padded(engine, inputs.numpy())))[0]
        names = spec.preprocessing.class_names
        if len(names) != len(logits):
            names = tuple(str(label) for label in range(len(logits)))
        shares, labels = logits.softmax(0).topk(min(top, len(names)))
        found[path] = [
            Guess(names[i], 100.0 * p) for p, i in zip(shares.tolist(), labels.tolist(), strict=True)
        ]
    return found
