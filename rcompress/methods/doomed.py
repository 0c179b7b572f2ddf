"""Which parameters pruning would take: what a growing penalty empties before they go."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rcompress.errors import RcompressError
from rcompress.methods.channel_selection import units_to_remove
from rcompress.methods.group_tracing import find_groups
from rcompress.methods.importance import score_channels
from rcompress.methods.prune import InputSize, PruneOptions, choose_widths


def doomed_channels(module: nn.Module, input_size: InputSize, options: PruneOptions) -> dict[str, Tensor]:
    """By parameter name, bool (channels,) over its first axis: the outputs that `prune` would remove now.

    Of all layers that make the channels or scale them: left alone, BatchNorm would undo whatever becomes of the
    filters before it. What only reads the channels is not named. Nothing is changed.

    Raises:
        RcompressError: the network cannot be traced, or nothing would go; an importance that looks at images.
    """
    graph = find_groups(module, input_size, options.keep_residual, options.ignore)
    scores = score_channels(graph, options.importance, seed=options.seed)
    groups = [group for group in graph.prunable if group.name in scores]
    removed = units_to_remove(groups, scores, choose_widths(graph, scores, options))
    if not any(removed.values()):
        raise RcompressError("growing penalty", "no channel would go", "raise --penalty-ratio")
    names = {parameter: name for name, parameter in module.named_parameters()}
    found: dict[str, Tensor] = {}
    for group in groups:
        gone = torch.tensor(group.channels_of(removed.get(group.name, ())), dtype=torch.int64)
        for member in group.members:
            if member.side == "in":
                continue
            channels = member.channels[torch.isin(member.roots, gone)]
            for parameter in member.parameters():
                if parameter.requires_grad and len(channels):
                    mask = found.setdefault(names[parameter], torch.zeros(len(parameter), dtype=torch.bool))
                    mask[channels] = True
    return found
