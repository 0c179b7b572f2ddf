"""The public ResNet-32 and real CIFAR-10, where the machine has them."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from rcompress.data import Dataset, open_dataset
from rcompress.models import load_model
from rcompress.models.importing import ImportOptions, import_checkpoint
from rcompress.models.rebuild import LoadedModel

DATA_VARIABLE = "RCOMPRESS_TEST_DATA"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what these weights were trained with


def public_data(benchmark: str) -> Path | None:
    """The folder that holds both; None, with a word, where there is none."""
    root = Path(os.environ.get(DATA_VARIABLE, Path(__file__).parents[3] / "shared"))
    if _weights(root).is_file():
        return root
    print(
        f"{benchmark}: left out, {DATA_VARIABLE} names no folder with {_weights(root).name}", file=sys.stderr
    )
    return None


def public_resnet32(root: Path, folder: Path) -> tuple[LoadedModel, Dataset]:
    """The network, imported into ``folder``, and CIFAR-10."""
    dataset = open_dataset("cifar10", root / "data")
    preprocessing = replace(dataset.preprocessing(), mean=MEAN, std=STD)
    options = ImportOptions("resnet32", preprocessing, {"shortcut": "pad"})
    import_checkpoint(_weights(root), folder / "r32.pth", options)
    return load_model(folder / "r32.pth"), dataset


def _weights(root: Path) -> Path:
    return root / "models" / "akamaster" / "resnet32-d509ac18.th"
