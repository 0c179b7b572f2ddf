"""What a run leaves beside its checkpoint: the state to resume from, a log, the learning curves."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch

from rcompress.artifacts.checkpoint import load_tensors
from rcompress.artifacts.files import write_atomic
from rcompress.errors import RcompressError
from rcompress.training.curves import curves_png
from rcompress.training.loop import Trainer

FORMAT = "rcompress-resume/2"
"""Another whenever a state or an epoch of its history holds something else."""
RESUME_SUFFIX = ".resume"


class Journal:
    """Writes ``NAME.resume``, ``NAME.log.jsonl`` and ``NAME.curves.png`` after every epoch, each whole or not at all.

    Args:
        output: the checkpoint that the run will write.
        identity: primitives that say which run this is; another run's state is refused.
        tensorboard: also write event files to ``NAME.tensorboard/``.
    """

    def __init__(self, output: Path, identity: dict[str, Any], tensorboard: bool = False) -> None:
        self.state_path = output.with_suffix(RESUME_SUFFIX)
        self.log_path = output.with_suffix(".log.jsonl")
        self.curves_path = output.with_suffix(".curves.png")
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._events = _event_writer(output.with_suffix(".tensorboard")) if tensorboard else None

    def resume(self, trainer: Trainer) -> bool:
        """Bring ``trainer`` to where a killed run stood; False where there is nothing to resume.

        Raises:
            RcompressError: the state is another run's, or damaged.
        """
        if not self.state_path.exists():
            return False
        content = load_tensors(self.state_path)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise RcompressError(
                self.state_path, "is no state of a run of this rcompress", "remove it and start again"
            )
        if content.get("identity") != self.identity:
            raise RcompressError(
                self.state_path, "belongs to a run with other options", "use the same options, or remove it"
            )
        try:
            trainer.restore(content["state"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RcompressError(
                self.state_path, f"is damaged ({type(error).__name__})", "remove it and start again"
            ) from None
        return True

    def write(self, trainer: Trainer) -> None:
        """Keep the log, the curves and, last, the state after an epoch: a resumed run writes the others again."""
        lines = "".join(json.dumps(epoch) + "\n" for epoch in trainer.history)
        write_atomic(self.log_path, lines.encode())
        write_atomic(self.curves_path, curves_png(trainer.history))
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "identity": self.identity, "state": trainer.state()}, buffer)
        write_atomic(self.state_path, buffer.getvalue())
        if self._events is not None:
            _write_events(self._events, trainer.history[-1])

    def close(self) -> None:
        """The last epoch is done; the state stays until the checkpoint is written."""
        if self._events is not None:
            self._events.close()

    @staticmethod
    def discard(output: Path) -> None:
        """``output`` is written: the state to resume from goes."""
        output.with_suffix(RESUME_SUFFIX).unlink(missing_ok=True)


def _event_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RcompressError(
            "--tensorboard",
            "the package tensorboard is not installed",
            "pip install 'rcompress[tensorboard]'",
        ) from None
    return SummaryWriter(str(folder))


def _write_events(writer: Any, epoch: dict[str, Any]) -> None:
    for name, value in epoch.items():
        if name != "epoch":
            writer.add_scalar(name, value, epoch["epoch"])
    writer.flush()
