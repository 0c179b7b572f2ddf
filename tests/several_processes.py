"""What `tests/test_training_processes.py` starts under torchrun: a short run of a network without BatchNorm."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from rcompress.artifacts.spec import ModelSpec
from rcompress.data import open_dataset
from rcompress.errors import HelperDone
from rcompress.training import RECIPES, Constraint, Guidance, Settings, run_training
from rcompress.training.processes import ALONE, join


class Dying(Constraint):
    """The last process ends without a word in the second epoch."""

    def before_step(self, module: nn.Module, epochs_done: float) -> None:
        if epochs_done > 1.2 and os.environ.get("RANK") == "1":
            os._exit(9)

    def identity(self) -> dict[str, str]:
        return Constraint().identity()


def main(output: Path, dies: bool) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10)
    )
    dataset = open_dataset("digits")
    spec = ModelSpec(10, dataset.preprocessing(), "test:own")
    device = torch.device("cpu")
    several = "WORLD_SIZE" in os.environ
    processes = join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), device) if several else ALONE
    recipe = replace(RECIPES["default"], epochs=2, batch_size=64, cutout=4, learning_rate=0.01)
    settings = Settings(device, "fp32", processes=processes)
    constraints = (Dying(),) if dies else (Constraint(),)
    outcome = run_training(
        module, spec, dataset, recipe, settings, output, {}, resume=True, guidance=Guidance(None, constraints)
    )
    torch.save(
        {"weights": module.state_dict(), "history": outcome.history, "scores": outcome.metrics}, output
    )


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2:] == ["dies"])
    except HelperDone:
        sys.exit(0)
