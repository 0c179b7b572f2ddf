"""From stored images to network inputs, and the augmentation of a batch on its device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from rcompress.artifacts.spec import Preprocessing
from rcompress.data.dataset import Split


def normalize(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 (N, C, H, W) -> float32 (N, C, H, W): ``(x / 255 - mean) / std`` per channel."""
    shape = (1, -1, 1, 1)
    scale = 1.0 / (255.0 * torch.tensor(preprocessing.std, device=images.device))
    shift = -torch.tensor(preprocessing.mean, device=images.device) * 255.0 * scale
    return images.float().mul_(scale.view(shape)).add_(shift.view(shape))


def network_inputs(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """What the network takes: normalised floats, or uint8 (N, H, W, C) where its graph normalises."""
    if preprocessing.in_graph:
        return images.permute(0, 2, 3, 1).contiguous()
    return normalize(images, preprocessing)


def input_batches(
    split: Split, preprocessing: Preprocessing, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(network inputs, int64 labels) of ``split`` in order."""
    for images, labels in split.batches(batch_size):
        yield network_inputs(images, preprocessing), labels


def crop_shifts(count: int, padding: int, generator: torch.Generator) -> Tensor:
    """Random shifts int64 (count, 2), in rows and columns, for `shifted`."""
    return torch.randint(2 * padding + 1, (count, 2), generator=generator)


def shifted(images: Tensor, padding: int, shifts: Tensor) -> Tensor:
    """(N, C, H, W) moved by ``shifts`` (N, 2) of 0..2 * padding pixels, the border filled by reflection."""
    if padding == 0:
        return images
    count, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4, mode="reflect")
    shifts = shifts.to(images.device)
    rows = (torch.arange(height, device=images.device) + shifts[:, :1]).view(count, 1, height, 1)
    columns = (torch.arange(width, device=images.device) + shifts[:, 1:]).view(count, 1, 1, width)
    image = torch.arange(count, device=images.device).view(count, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, channels, 1, 1)
    return padded[image, channel, rows, columns]


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the images of (N, C, H, W) that ``chosen``, bool (N,), marks."""
    return torch.where(chosen.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)


def square_centres(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Random centres int64 (count, 2), row and column, in images of ``size`` (H, W), for `cutout`."""
    return torch.cat([torch.randint(side, (count, 1), generator=generator) for side in size], dim=1)


def cutout(images: Tensor, size: int, centres: Tensor) -> Tensor:
    """Blank one square of ``size`` pixels per image around ``centres`` (N, 2) (DeVries and Taylor 2017)."""
    if size == 0:
        return images
    count, _, height, width = images.shape
    centres = centres.to(images.device)
    centre_y, centre_x = centres[:, :1], centres[:, 1:]
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    in_rows = (rows >= centre_y - size // 2) & (rows < centre_y + (size + 1) // 2)
    in_columns = (columns >= centre_x - size // 2) & (columns < centre_x + (size + 1) // 2)
    hidden = in_rows.view(count, 1, height, 1) & in_columns.view(count, 1, 1, width)
    return images.masked_fill(hidden, 0.0)
