"""Several processes that train one network: each takes its share of every batch (PyTorch DDP, Li et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rcompress.errors import RcompressError


@dataclass(frozen=True)
class Processes:
    """This process among ``count``; process 0 alone writes and speaks."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, size: int) -> Tensor:
        """Positions int64 of a batch of ``size`` that are this process's: every position is exactly one's."""
        return torch.arange(self.rank, size, self.count)

    def share_of_batch(self, size: int) -> int:
        """Images of a batch of ``size`` for each process.

        Raises:
            RcompressError: they cannot be dealt evenly, and the mean gradient would be another one.
        """
        if size % self.count:
            raise RcompressError(
                "--batch-size",
                f"{size} images cannot be dealt evenly to {self.count} processes",
                f"use a multiple of {self.count}",
            )
        return size // self.count

    def sum(self, values: Tensor) -> Tensor:
        """``values`` summed over the processes, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """For what is trained outside the network (a hint's regressor): the mean over the processes."""
        for parameter in parameters:
            if parameter.grad is not None:
                self.sum(parameter.grad).div_(self.count)

    def align(self, module: nn.Module) -> None:
        """Give every process the first one's tensors: BatchNorm's statistics are of each one's own images."""
        if self.count > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor.detach(), 0)

    def parallel(self, module: nn.Module, device: torch.device) -> nn.Module:
        """``module`` whose gradients are averaged over the processes while they are computed."""
        if self.count == 1:
            return module
        where = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=where)

    def leave(self) -> None:
        """The common work is done."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()


ALONE = Processes()


def join(rank: int, count: int, device: torch.device) -> Processes:
    """Meet the other processes at the address in the environment, as ``torchrun`` sets it.

    Raises:
        RcompressError: they cannot be met.
    """
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=count)
    except (RuntimeError, ValueError) as error:
        raise RcompressError(
            "torchrun", f"the processes cannot meet ({error})", "check its rendezvous options"
        ) from None
    return Processes(rank, count)


def synchronised(module: nn.Module, device: torch.device, processes: Processes) -> nn.Module:
    """``module`` whose BatchNorm takes its statistics over the whole batch.

    Raises:
        RcompressError: on a CPU, where PyTorch has no such layer, or with one process.
    """
    if device.type != "cuda" or processes.count == 1:
        raise RcompressError("--sync-bn", "needs several processes with a GPU each", "leave it out")
    return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-any-return, no-untyped-call]


def unsynchronised(module: nn.Module) -> nn.Module:
    """``module`` with plain BatchNorm2d again where it was made synchronous; tensors are shared, not copied."""
    for name, child in module.named_children():
        if isinstance(child, nn.SyncBatchNorm):
            plain = nn.BatchNorm2d(
                child.num_features, child.eps, child.momentum or 0.1, child.affine, child.track_running_stats
            )
            plain.__dict__.update(
                {key: child.__dict__[key] for key in ("_parameters", "_buffers", "training")}
            )
            setattr(module, name, plain)
        else:
            unsynchronised(child)
    return module
