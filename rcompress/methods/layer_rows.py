"""A layer as a regression: rows of inputs and the outputs that they ought to give."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rcompress.engines.torch_node import Node
from rcompress.engines.torch_spatial import spatial_pads


@dataclass(frozen=True)
class Rows:
    """Some positions of some images.

    Attributes:
        inputs: float32 (rows, groups, inputs of a group).
        targets: float32 (rows, outputs).
    """

    inputs: Tensor
    targets: Tensor


def layer_rows(
    node: Node,
    weight: Tensor,
    inputs: list[Tensor],
    targets: list[Tensor],
    rows: int,
    generator: torch.Generator,
) -> Rows:
    """About ``rows`` random positions of a convolution's inputs and outputs; rows of matrices as they are.

    Args:
        node: a Conv over images, a Gemm or a MatMul.
        weight: its weights as the graph holds them.
        inputs, targets: of the layer, for each batch.
        rows: how many to take in all, evenly from the images; at least one from each.
        generator: of the choice, on the CPU.
    """
    if node.op != "Conv":
        flat = [x.reshape(-1, 1, x.shape[-1]) for x in inputs]
        return Rows(torch.cat(flat), torch.cat([y.reshape(-1, y.shape[-1]) for y in targets]))
    images = sum(len(x) for x in inputs)
    parts = [
        _positions(node, weight, x, y, max(1, round(rows / images)), generator)
        for x, y in zip(inputs, targets, strict=True)
    ]
    return Rows(torch.cat([part.inputs for part in parts]), torch.cat([part.targets for part in parts]))


def matrix_form(node: Node, weight: Tensor) -> Tensor:
    """Weights as (groups, outputs of a group, inputs of a group), the order in which `Rows` has them."""
    if node.op == "Conv":
        return weight.reshape(node.attributes.get("group", 1), -1, weight[0].numel())
    by_rows = node.op == "Gemm" and node.attributes.get("transB", 0)
    return (weight if by_rows else weight.t())[None]


def graph_form(node: Node, matrix: Tensor, like: Tensor) -> Tensor:
    """What `matrix_form` makes, back in the shape of ``like``."""
    if node.op == "Conv" or (node.op == "Gemm" and node.attributes.get("transB", 0)):
        return matrix.reshape(like.shape)
    return matrix[0].t().contiguous()


def outputs_of(inputs: Tensor, matrix: Tensor) -> Tensor:
    """(rows, outputs) of rows (rows, groups, inputs) and weights (groups, outputs, inputs)."""
    return torch.einsum("rgi,goi->rgo", inputs, matrix).flatten(1)


def _positions(
    node: Node, weight: Tensor, images: Tensor, outputs: Tensor, count: int, generator: torch.Generator
) -> Rows:
    kernel = tuple(weight.shape[2:])
    strides = node.attributes.get("strides", [1, 1])
    dilations = node.attributes.get("dilations", [1, 1])
    padded = F.pad(images, spatial_pads(node, images, kernel))
    patches = F.unfold(
        padded, kernel, dilation=tuple(dilations), stride=tuple(strides)
    )  # (n, in * kh * kw, l)
    where = torch.randint(patches.shape[2], (len(images), 1, count), generator=generator).to(images.device)
    groups = node.attributes.get("group", 1)
    chosen = patches.gather(2, where.expand(-1, patches.shape[1], -1)).transpose(1, 2)
    wanted = outputs.flatten(2).gather(2, where.expand(-1, outputs.shape[1], -1)).transpose(1, 2)
    return Rows(chosen.reshape(-1, groups, weight[0].numel()), wanted.reshape(-1, outputs.shape[1]))
