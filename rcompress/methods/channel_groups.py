"""Which channels of a network go together, which cannot go and why, and the cut itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch_pruning as tp
from torch import nn

from rcompress.errors import RcompressError
from rcompress.methods.channel_members import BatchNorm, Member

Removal = Mapping[str, Sequence[int]]
HEAD = "its outputs are the classes"


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that several layers share, so that one goes from all of them or from none.

    Attributes:
        name: of the first layer that makes these channels; it stays the same when the network is pruned.
        width: number of channels.
        members: every layer's share; the first one's numbering of the channels is the group's.
        residual: whether the channels cross a residual addition.
        blocks: convolution groups among which the channels are divided evenly (1: none). Channel ``i`` of each
            block goes with channel ``i`` of the others, so that the number of groups stays.
        reason: why no channel can go; None where they can.
    """

    name: str
    width: int
    members: tuple[Member, ...]
    residual: bool = False
    blocks: int = 1
    reason: str | None = None

    @property
    def units(self) -> int:
        """How many things can go one by one: channels, or sets of ``blocks`` channels."""
        return self.width // self.blocks

    @property
    def makers(self) -> tuple[Member, ...]:
        """The convolutions and linear layers whose outputs these channels are."""
        return tuple(member for member in self.members if member.makes_channels)

    @property
    def readers(self) -> tuple[Member, ...]:
        """The convolutions and linear layers whose inputs these channels are."""
        return tuple(member for member in self.members if member.reads_channels)

    @property
    def shares_statistics(self) -> bool:
        """Whether some layer normalises over the channels: the others then change when one goes, even a dead one."""
        return any(isinstance(member.layer, nn.LayerNorm | nn.GroupNorm) for member in self.members)

    @property
    def batch_norms(self) -> tuple[Member, ...]:
        """The BatchNorm layers that scale these channels."""
        return tuple(member for member in self.members if isinstance(member.layer, BatchNorm))

    def channels_of(self, units: Iterable[int]) -> list[int]:
        """The channels that ``units`` stand for, in order."""
        return sorted(unit + block * self.units for unit in units for block in range(self.blocks))

    def silence(self, units: Iterable[int]) -> None:
        """Make all weights of ``units`` zero in place: the outputs become those of the network without them.

        They do not where the group `shares_statistics`.
        """
        channels = torch.tensor(self.channels_of(units))
        for member in self.members:
            member.zero(channels)


class ChannelGraph:
    """The channel groups of one network, and the cut. After a cut this graph is used up: find the groups again.

    Attributes:
        module: the network, in evaluation mode.
        groups: all groups, in the order of the network's layers.
    """

    def __init__(
        self, module: nn.Module, groups: Iterable[ChannelGroup], dependencies: tp.DependencyGraph
    ) -> None:
        self.module = module
        self.groups = tuple(groups)
        self.dependencies = dependencies

    def __getitem__(self, name: str) -> ChannelGroup:
        """The group of that name."""
        return next(group for group in self.groups if group.name == name)

    @property
    def prunable(self) -> tuple[ChannelGroup, ...]:
        """The groups that can lose channels."""
        return tuple(group for group in self.groups if group.reason is None)

    def require_prunable(self) -> None:
        """Refuse a network in which no group can lose channels.

        Raises:
            RcompressError: there is none.
        """
        if not self.prunable:
            why = next(iter(self.kept.items()), None)
            reason = f" ({why[0]}: {why[1]})" if why else ""
            raise RcompressError(
                "the network", f"no layer can lose channels{reason}", "keep fewer layers as they are"
            )

    @property
    def kept(self) -> dict[str, str]:
        """Why the other groups cannot, by name; the classes are not worth a word."""
        reasons = {group.name: group.reason for group in self.groups}
        return {name: reason for name, reason in reasons.items() if reason is not None and reason != HEAD}

    def cut(self, removed: Removal) -> None:
        """Remove from every layer what ``removed`` names: units (see `ChannelGroup.units`) by group."""
        frozen = [name for name, parameter in self.module.named_parameters() if not parameter.requires_grad]
        for group in self.groups:
            if channels := group.channels_of(removed.get(group.name, ())):
                root = group.members[0].layer
                pruner = self.dependencies.get_pruner_of_module(root)
                self.dependencies.get_pruning_group(root, pruner.prune_out_channels, channels).prune()
        for name in frozen:  # Torch-Pruning makes every parameter it cuts trainable again
            self.module.get_parameter(name).requires_grad_(False)
