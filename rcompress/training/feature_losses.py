"""What a student's features should share with its teacher's: values, attention, relations."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ANGLE_IMAGES = 128  # angles need images^3 values: 8 MB at this many, so larger batches are taken in parts


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of features (N, C, H, W) (Romero et al. 2015, FitNets, equation 3, as a mean)."""
    student, teacher = same_size(student, teacher)
    return F.mse_loss(student, teacher)


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of attention maps (Zagoruyko and Komodakis 2017, section 3.1, equation 2, p = 2).

    Args:
        student, teacher: features (N, C, H, W); the numbers of channels may differ.
    """
    student, teacher = same_size(student, teacher)
    return F.mse_loss(attention(student), attention(teacher))


def attention(features: Tensor) -> Tensor:
    """Sum of squares over the channels of (N, C, H, W), as rows (N, H * W) of length 1."""
    return F.normalize(features.square().sum(dim=1).flatten(1), dim=1)


def relational_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Differences of distances (weight 25) and angles (weight 50) among embeddings.

    Park et al. 2019 (Relational Knowledge Distillation), section 3.2, with the weights of its section 4.2.

    Args:
        student, teacher: (N, D) each; D may differ.
    """
    distance = F.smooth_l1_loss(distances(student), distances(teacher))
    return 25.0 * distance + 50.0 * _angle_loss(student, teacher)


def distances(embeddings: Tensor) -> Tensor:
    """Euclidean distances (N, N) of (N, D), divided by their mean over the pairs that are apart."""
    squares = embeddings.square().sum(dim=1)
    products = embeddings @ embeddings.T
    squared = (squares[:, None] + squares[None, :] - 2.0 * products).clamp_min(1e-12)
    apart = ~torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    found = squared.sqrt() * apart  # the root's slope has no end at 0
    return found / found[apart].mean().clamp_min(1e-12)


def angles(embeddings: Tensor) -> Tensor:
    """Cosines (N, N, N) of the angle at embedding i between j and k."""
    directions = F.normalize(embeddings[None, :, :] - embeddings[:, None, :], dim=2)
    return torch.bmm(directions, directions.transpose(1, 2))


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both (N, C, H, W) at the smaller one's height and width, by averaging."""
    height, width = (min(student.shape[axis], teacher.shape[axis]) for axis in (2, 3))
    return F.adaptive_avg_pool2d(student, (height, width)), F.adaptive_avg_pool2d(teacher, (height, width))


def _angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    count = math.ceil(len(student) / ANGLE_IMAGES)  # as even as can be: the parts count alike
    parts = zip(student.tensor_split(count), teacher.tensor_split(count), strict=True)
    losses = [F.smooth_l1_loss(angles(own), angles(shown)) for own, shown in parts]
    return torch.stack(losses).mean()
