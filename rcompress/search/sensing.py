"""Sensitivity of a checkpoint's network, from the images on which choices may be made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rcompress.artifacts.spec import ModelSpec
from rcompress.data import Dataset, Split, balanced_indices
from rcompress.methods.channel_groups import ChannelGraph
from rcompress.methods.channel_selection import Scores
from rcompress.methods.importance import Importance
from rcompress.progress import SILENT, Progress
from rcompress.search.sensitivity import RATIOS, measure_curves
from rcompress.search.sensitivity_file import Sensitivity
from rcompress.search.yardstick import Yardstick
from rcompress.training.settings import Settings
from rcompress.training.start import Start

IMAGES = 1000


def sense(
    source: Path,
    start: Start,
    graph: ChannelGraph,
    scores: Scores,
    importance: Importance,
    settings: Settings,
    images: int = IMAGES,
    ratios: Sequence[float] = RATIOS,
    progress: Progress = SILENT,
) -> Sensitivity:
    """Measure every group of ``graph``, whose module is that of ``start``, read from ``source``.

    The module is run on the settings' device and left on the CPU.

    Raises:
        RcompressError: there are no images, or the network's outputs are not finite.
    """
    spec = start.spec
    module = graph.module.to(settings.device)
    judges = choice_images(start.dataset, spec, images, settings.seed)
    yardstick = Yardstick(module, judges, spec.preprocessing, settings.device)
    curves = measure_curves(graph, scores, yardstick, ratios, progress)
    module.cpu()
    return Sensitivity(
        artifact=source.name,
        sha256=start.parent["parent_sha256"],
        importance=importance,
        dataset=start.dataset.name,
        split=spec.choice_split,
        images=len(judges),
        top1_percent=yardstick.parent.top1_percent,
        curves=curves,
    )


def choice_images(dataset: Dataset, spec: ModelSpec, images: int, seed: int) -> Split:
    """At most ``images`` of the split on which choices may be made, evenly over the classes."""
    split = dataset.split(spec.choice_split)
    return split.subset(balanced_indices(split.labels, min(images, len(split)), seed))
