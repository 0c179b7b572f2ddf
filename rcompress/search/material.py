"""What a search for widths works on."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from rcompress.artifacts.checkpoint import checkpoint_bytes
from rcompress.artifacts.spec import ModelSpec
from rcompress.methods.channel_groups import ChannelGraph, ChannelGroup
from rcompress.methods.channel_selection import Scores
from rcompress.methods.group_tracing import find_groups
from rcompress.methods.prune import prune_to
from rcompress.methods.prune_cost import CostModel
from rcompress.search.allocation import Cost, Widths

STEP_BYTES = 4096  # what the lineage grows by, at most, when a pruned checkpoint is written
NORM_BYTES = 8  # of a BatchNorm's channel, beside its parameters: running mean and variance


@dataclass(frozen=True)
class Material:
    """A network before anything goes.

    Attributes:
        graph: its channel groups; ``graph.module`` lies on the CPU and stays as it is.
        spec: its description.
        scores: of the channels, by group.
        file_bytes: of the file it came from, which may be packed or of half precision.
    """

    graph: ChannelGraph
    spec: ModelSpec
    scores: Scores
    file_bytes: int

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.graph.module

    @property
    def groups(self) -> list[ChannelGroup]:
        """Those that may lose channels and have scores."""
        return [group for group in self.graph.prunable if group.name in self.scores]

    @cached_property
    def written(self) -> int:
        """Bytes of a checkpoint of the network as it is, unpacked."""
        return len(checkpoint_bytes(self.spec, self.module.state_dict()))

    @property
    def whole(self) -> Widths:
        """Of the network as it is."""
        return {group.name: group.width for group in self.groups}

    def candidate(self, widths: Widths) -> nn.Module:
        """A copy of the network, on the CPU, cut to ``widths``."""
        copied = copy.deepcopy(self.module)
        if any(widths.get(group.name, group.width) != group.width for group in self.groups):
            input_size = self.spec.preprocessing.input_size
            prune_to(find_groups(copied, input_size), input_size, self.scores, widths)
        return copied

    def costs(self) -> dict[str, Cost]:
        """``macs``, ``parameters`` and ``size_bytes`` (of the checkpoint) as functions of the widths."""
        model = CostModel(self.graph, self.spec.preprocessing.input_size)
        parameters = model.predict({}).parameters
        element = next(self.module.parameters()).element_size()
        norms = {group.name: NORM_BYTES * len(group.batch_norms) for group in self.groups}
        widest = self.whole

        def size(widths: Mapping[str, int]) -> float:
            gone = element * (parameters - model.predict(widths).parameters)
            gone += sum(norms[name] * (widest[name] - width) for name, width in widths.items())
            return self.written + STEP_BYTES - gone

        return {
            "macs": lambda widths: model.predict(widths).macs,
            "parameters": lambda widths: model.predict(widths).parameters,
            "size_bytes": size,
        }
