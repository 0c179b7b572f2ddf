"""The harms of narrowing single groups, of the whole network and of it as it is on the way down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rcompress.data import Dataset
from rcompress.methods.channel_groups import ChannelGroup
from rcompress.methods.channel_selection import Scores, units_to_remove
from rcompress.methods.group_tracing import find_groups
from rcompress.progress import SILENT, Progress
from rcompress.search.allocation import Harms, Widths
from rcompress.search.material import Material
from rcompress.search.sensing import choice_images
from rcompress.search.sensitivity import Curve, measure_curves
from rcompress.search.sensitivity_file import read_sensitivity, require_fitting
from rcompress.search.yardstick import Yardstick
from rcompress.training.recovery import reestimate_batchnorm
from rcompress.training.settings import Settings

IMAGES = 500
STAGE_RATIOS = (0.125, 0.25, 0.5, 0.75, 0.9)
MOST_LEVELS = 32  # widths of one group that the solver tells apart


@dataclass(frozen=True)
class Adaptation:
    """What `families.Adaptive` works from: the whole network's harms, and the means to measure a cut one's."""

    harms: Harms
    measure: Callable[[Widths], Harms] | None = None


def harms_of(
    curves: Mapping[str, Curve], groups: Sequence[ChannelGroup], round_to: int, divergence: float = 0.0
) -> Harms:
    """Of each group that has a curve, at the widths among which the solver chooses.

    Args:
        divergence: that of the network whose single groups were narrowed.
    """
    return {
        group.name: curves[group.name].harms(levels(group, round_to), divergence)
        for group in groups
        if group.name in curves
    }


def levels(group: ChannelGroup, round_to: int) -> list[int]:
    """The widths among which a solver chooses: the group's own and multiples of ``round_to`` below it."""
    multiple = round_to if group.blocks == 1 else group.blocks
    count = max(1, (group.width - 1) // multiple)
    step = multiple * -(-count // MOST_LEVELS)
    return [*range(step, group.width, step), group.width]


def read_adaptation(
    path: Path, sha256: str, groups: Sequence[ChannelGroup], round_to: int, importance: str
) -> Adaptation:
    """What ``rcompress sensitivity`` wrote; its curves alone decide.

    Args:
        sha256: of the network's file, of which the curves must be.
        importance: by which channels are to go, as they went for the curves.

    Raises:
        RcompressError: the file cannot be read, or is of another network or importance.
    """
    found = read_sensitivity(path)
    require_fitting(path, found, sha256, {group.name: group.width for group in groups}, importance)
    return Adaptation(harms_of(found.curves, groups, round_to))


def measured_adaptation(
    material: Material, dataset: Dataset, settings: Settings, round_to: int, progress: Progress = SILENT
) -> Adaptation:
    """Measured here and now, on images of the split for choices.

    A network on the way down is cut, its BatchNorm statistics are re-estimated, and its single groups are narrowed
    further, all against the outputs of the whole network. Groups that can lose no more stay as wide as they are.
    """
    preprocessing = material.spec.preprocessing
    judges = choice_images(dataset, material.spec, IMAGES, settings.seed)
    whole = material.candidate({}).to(settings.device)
    yardstick = Yardstick(whole, judges, preprocessing, settings.device)
    train = dataset.split("train").on(settings.device)

    def measure(widths: Widths) -> Harms:
        module = material.candidate(widths)
        graph = find_groups(module, preprocessing.input_size)
        module.to(settings.device)
        if widths != material.whole:
            reestimate_batchnorm(module, train, preprocessing, settings)
        scores = _remaining(material.groups, material.scores, widths)
        divergence = yardstick.measure(module).divergence
        curves = measure_curves(graph, scores, yardstick, STAGE_RATIOS, progress)
        narrow = {group.name: {widths.get(group.name, group.width): 0.0} for group in material.groups}
        return {**narrow, **harms_of(curves, graph.groups, round_to, divergence)}

    return Adaptation(measure(material.whole), measure)


def _remaining(groups: Sequence[ChannelGroup], scores: Scores, widths: Widths) -> dict[str, Tensor]:
    """The scores of the units that are left at ``widths``, in their order."""
    removed = units_to_remove(groups, scores, widths)
    left = {}
    for group in groups:
        gone = set(removed.get(group.name, ()))
        left[group.name] = scores[group.name][[unit for unit in range(group.units) if unit not in gone]]
    return left
