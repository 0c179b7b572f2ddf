"""What several commands do alike: settle where to compute, say what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rcompress.cli.output import Output
    from rcompress.training import Outcome, Settings
    from rcompress.training.settings import PrecisionChoice


def open_settings(
    device: str, threads: int, precision: PrecisionChoice = "auto", compile: bool = False, seed: int = 0
) -> Settings:
    """The options that say where and how to compute, settled for this machine."""
    from rcompress.training import Settings, resolve_device, resolve_precision

    set_threads(threads)
    chosen = resolve_device(device)
    return Settings(chosen, resolve_precision(precision, chosen), compile, seed)


def set_threads(threads: int) -> None:
    """Give PyTorch ``threads`` CPU threads; 0 leaves its choice."""
    if threads:
        import torch

        torch.set_num_threads(threads)


def say_scores(out: Output, outcome: Outcome) -> None:
    """One line: the accuracy on data that chose nothing, with its interval, and how long an epoch took."""
    metrics = outcome.metrics
    text = f"top-1 {metrics['top1_percent']:.2f} % ({metrics['top1_percent_low']:.2f}-{metrics['top1_percent_high']:.2f})"
    if outcome.history:
        text += (
            f", best epoch {metrics['best_epoch']} of {len(outcome.history)} by validation "
            f"({metrics['validation_top1_percent']:.2f} %), {metrics['epoch_seconds']:.1f} s per epoch"
        )
    out.note(text)
