"""How many channels each group keeps, and which ones go.

Every rule ends in ``widths``, channels to keep by group; `units_to_remove` then takes those of least importance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from rcompress.methods.channel_groups import ChannelGroup

Scores = Mapping[str, Tensor]
FLOOR = (
    0.1  # of a group's units stay whatever the global ranking says: a layer without channels ends the network
)


def widths_by_ratio(
    groups: Iterable[ChannelGroup], ratio: float | Mapping[str, float], round_to: int
) -> dict[str, int]:
    """Widths after removing ``ratio`` of each group; of those alone that are named, where it is a mapping."""
    widths = {}
    for group in groups:
        share = ratio if isinstance(ratio, float) else ratio.get(group.name, 0.0)
        widths[group.name] = kept_width(group.width, share, round_to, group.blocks)
    return widths


def widths_by_ranking(
    groups: Iterable[ChannelGroup], scores: Scores, ratio: float, round_to: int
) -> dict[str, int]:
    """Widths after removing ``ratio`` of all units together, those of the lowest scores in the whole network.

    Args:
        groups: those that may lose channels; those without scores keep theirs.
        scores: (units,) each, comparable across groups (see `rcompress.methods.importance.comparable`).
        ratio: share of all units; a group keeps `FLOOR` of its own at least, so fewer may go.
        round_to: each width goes to its nearest multiple afterwards.
    """
    scored = [group for group in groups if group.name in scores]
    open_to_removal = torch.cat([_above_floor(scores[group.name]) for group in scored])
    total = sum(group.units for group in scored)
    count = min(math.floor(total * ratio + 1e-9), int(open_to_removal.isfinite().sum()))
    threshold = float(open_to_removal.sort().values[count - 1]) if count else -math.inf
    return widths_above(scored, scores, threshold, round_to)


def widths_above(
    groups: Iterable[ChannelGroup], scores: Scores, threshold: float, round_to: int
) -> dict[str, int]:
    """Widths after removing the units that score no more than ``threshold``; `FLOOR` of each group stays."""
    widths = {}
    for group in groups:
        gone = int((_above_floor(scores[group.name]) <= threshold).sum())
        widths[group.name] = kept_width(group.width, gone / group.units, round_to, group.blocks)
    return widths


def kept_width(width: int, ratio: float, round_to: int, blocks: int = 1) -> int:
    """Channels that stay: ``floor(width * (1 - ratio))`` at the nearest multiple of ``round_to``, at least one.

    Channels that grouped convolutions divide into ``blocks`` stay at a multiple of ``blocks`` instead: the number
    of convolution groups stays, whatever multiples engines run fast. Where nothing is to go, the width stays.
    """
    if ratio <= 0:
        return width
    multiple = round_to if blocks == 1 else blocks
    exact = max(1, math.floor(width * (1.0 - ratio) + 1e-9))
    rounded = max(1, math.floor(exact / multiple + 0.5)) * multiple
    return min(width, rounded)


def units_to_remove(
    groups: Iterable[ChannelGroup], scores: Scores, widths: Mapping[str, int]
) -> dict[str, list[int]]:
    """The units of least importance, of equals the first, that bring each group to its width."""
    removed = {}
    for group in groups:
        count = group.units - widths.get(group.name, group.width) // group.blocks
        if count:
            removed[group.name] = scores[group.name].argsort(stable=True)[:count].tolist()
    return removed


def _above_floor(scores: Tensor) -> Tensor:
    """``scores`` (units,) with infinity for those that stay in any case: the highest `FLOOR` of them."""
    kept = max(1, math.ceil(FLOOR * len(scores)))
    guarded = scores.clone()
    guarded[scores.argsort(stable=True)[len(scores) - kept :]] = math.inf
    return guarded
