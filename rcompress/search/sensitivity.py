"""What a network loses when one group of channels alone is narrowed, group by group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from rcompress.methods.channel_groups import ChannelGraph, ChannelGroup
from rcompress.progress import SILENT, Progress
from rcompress.search.yardstick import Yardstick

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)


@dataclass(frozen=True)
class Point:
    """A group at ``kept`` channels, all others whole: see `yardstick.Distance`."""

    kept: int
    divergence: float
    top1_percent: float


@dataclass(frozen=True)
class Curve:
    """One group: its width, the layers that make its channels, and its points from wide to narrow."""

    width: int
    layers: tuple[str, ...]
    points: tuple[Point, ...]

    def harms(self, widths: Sequence[int], divergence: float = 0.0) -> dict[int, float]:
        """The divergence beyond ``divergence``, that of the network with this group whole, at each of ``widths``
        that the points span, on straight lines between them.

        Noise that makes a narrower group look better than a wider one is taken out first: the harm never falls.
        """
        kept, worst = [float(self.width)], [0.0]
        for point in self.points:
            kept.append(point.kept)
            worst.append(max(worst[-1], point.divergence - divergence))
        within = [width for width in widths if kept[-1] <= width <= self.width]
        return {width: _between(width, kept[::-1], worst[::-1]) for width in within}


def measure_curves(
    graph: ChannelGraph,
    scores: Mapping[str, Tensor],
    yardstick: Yardstick,
    ratios: Sequence[float] = RATIOS,
    progress: Progress = SILENT,
) -> dict[str, Curve]:
    """Silence the least important channels of each group, more and more of them, and hold the network's outputs
    against the parent's.

    BatchNorm statistics stay as they are. Silent channels do what a cut does, but where a layer normalises over the
    channels: there the curve is an estimate.

    Args:
        graph: the network's groups; its weights are changed and put back.
        scores: (units,) by group: the lowest go first; groups without scores are passed over.
        yardstick: the parent's outputs.
        ratios: shares of the units to silence.

    Returns:
        Curves by group, in the network's order.
    """
    scored = [group for group in graph.prunable if group.name in scores]
    progress.start("sensitivity", len(scored))
    curves = {}
    for group in scored:
        order = scores[group.name].argsort(stable=True).tolist()
        with _restored(group):
            points = tuple(_points(graph, group, order, yardstick, ratios))
        curves[group.name] = Curve(group.width, tuple(maker.name for maker in group.makers), points)
        progress.advance()
    return curves


def _points(
    graph: ChannelGraph, group: ChannelGroup, order: list[int], yardstick: Yardstick, ratios: Sequence[float]
) -> Iterator[Point]:
    counts = {min(round(group.units * ratio), group.units - 1) for ratio in ratios} - {0}
    for count in sorted(counts):
        group.silence(order[:count])
        found = yardstick.measure(graph.module)
        yield Point(group.width - count * group.blocks, found.divergence, found.top1_percent)


@contextmanager
def _restored(group: ChannelGroup) -> Iterator[None]:
    """The group's weights are afterwards what they were."""
    parameters = [parameter for member in group.members for parameter in member.parameters()]
    saved = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(parameters, saved, strict=True):
                parameter.copy_(values)


def _between(place: float, places: Sequence[float], values: Sequence[float]) -> float:
    """Linear interpolation; ``places`` ascend and span ``place``."""
    above = next(index for index, known in enumerate(places) if known >= place)
    if places[above] == place:
        return values[above]
    share = (place - places[above - 1]) / (places[above] - places[above - 1])
    return values[above - 1] + share * (values[above] - values[above - 1])
