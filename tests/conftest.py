"""Shared fixtures: the real data where they are, a small trained network, the command line in this process."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # test processes share the cores: threads would fight for them

DATA_VARIABLE = "RCOMPRESS_TEST_DATA"
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Run:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """What a test before this one asked for is not this one's."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with ``data/`` and ``models/``; tests that need it skip where it is not there."""
    folder = Path(os.environ.get(DATA_VARIABLE, ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"{DATA_VARIABLE} names no folder with data/ and models/")
    return folder


@pytest.fixture(scope="session")
def data_dir(test_data: Path) -> Path:
    """The root of the real datasets."""
    return test_data / "data"


@pytest.fixture
def rcompress(capsys, monkeypatch) -> Callable[..., Run]:
    """Run the command line as a user would, through its entry point and error boundary."""
    from rcompress.cli.app import main

    def run(*words: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["rcompress", *(str(word) for word in words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        shown = capsys.readouterr()
        return Run(code, shown.out, shown.err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A ResNet-20 trained on digits for a few epochs: real weights, above 90 % accuracy."""
    import torch

    from rcompress.data import open_dataset
    from rcompress.training import Recipe, Settings, run_training
    from rcompress.training.run import write_trained
    from rcompress.training.start import fresh

    target = tmp_path_factory.mktemp("trained") / "r20.pth"
    start = fresh("resnet20", {}, open_dataset("digits"), seed=0)
    recipe = Recipe(epochs=4, batch_size=32, learning_rate=0.1, ema=0.9)
    outcome = run_training(
        start.module, start.spec, start.dataset, recipe, Settings(torch.device("cpu")), target, {}
    )
    assert outcome.scores.top1_percent > 90
    write_trained(target, "train", start.spec, outcome, {"epochs": 4}, {})
    return target


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with that network as r20.pth."""
    shutil.copy(trained, tmp_path / "r20.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path
