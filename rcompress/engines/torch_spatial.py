"""ONNX operators that move a window over images, or change their size; see `torch_ops`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rcompress.engines.torch_node import Inputs, Node, integers
from rcompress.errors import RcompressError

RESIZE_DEFAULTS = {
    "mode": b"nearest",
    "coordinate_transformation_mode": b"half_pixel",
    "keep_aspect_ratio_policy": b"stretch",
    "antialias": 0,
}


def spatial_pads(node: Node, inputs: Tensor, kernel: Sequence[int]) -> list[int]:
    """Padding of the spatial axes as F.pad wants it: last axis first, (begin, end) each."""
    rank = len(kernel)
    strides = node.attributes.get("strides", [1] * rank)
    dilations = node.attributes.get("dilations", [1] * rank)
    mode = node.attributes.get("auto_pad", b"NOTSET").decode()
    pads = node.attributes.get("pads", [0] * 2 * rank)
    flat: list[int] = []
    for axis in reversed(range(rank)):
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            size = inputs.shape[2 + axis]
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            total = max((math.ceil(size / strides[axis]) - 1) * strides[axis] + reach - size, 0)
            small, large = total // 2, total - total // 2
            flat += [small, large] if mode == "SAME_UPPER" else [large, small]
        elif mode == "VALID":
            flat += [0, 0]
        else:
            flat += [pads[axis], pads[axis + rank]]
    return flat


def conv(node: Node, inputs: Inputs) -> Tensor:
    images, weight = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    rank = weight.dim() - 2
    strides = node.attributes.get("strides", [1] * rank)
    dilations = node.attributes.get("dilations", [1] * rank)
    groups = node.attributes.get("group", 1)
    flat = spatial_pads(node, images, weight.shape[2:])
    begins, ends = flat[0::2][::-1], flat[1::2][::-1]
    if begins != ends:
        images, begins = F.pad(images, flat), [0] * rank
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    result: Tensor = convolve(images, weight, bias, strides, begins, dilations, groups)
    return result


def _pool_window(node: Node, images: Tensor) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, strides, dilations and padding; with ceil_mode the end is padded to fit the last window."""
    kernel = [int(k) for k in node.attributes["kernel_shape"]]
    rank = len(kernel)
    strides = node.attributes.get("strides", [1] * rank)
    dilations = node.attributes.get("dilations", [1] * rank)
    flat = spatial_pads(node, images, kernel)
    if node.attributes.get("ceil_mode", 0):
        for axis in range(rank):
            begin = 2 * (rank - 1 - axis)
            size = images.shape[2 + axis] + flat[begin] + flat[begin + 1]
            span = size - ((kernel[axis] - 1) * dilations[axis] + 1)
            steps = math.ceil(span / strides[axis])
            if steps * strides[axis] >= images.shape[2 + axis] + flat[begin]:
                steps -= 1  # a window must begin inside the image or its leading padding
            flat[begin + 1] += max(steps * strides[axis] - span, 0)
    return kernel, list(strides), list(dilations), flat


def max_pool(node: Node, inputs: Inputs) -> Tensor:
    kernel, strides, dilations, flat = _pool_window(node, inputs[0])
    padded = F.pad(inputs[0], flat, value=-math.inf) if any(flat) else inputs[0]
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    result: Tensor = pool(padded, kernel, strides, 0, dilations)
    return result


def average_pool(node: Node, inputs: Inputs) -> Tensor:
    images = inputs[0]
    kernel, strides, dilations, flat = _pool_window(node, images)
    if any(dilation != 1 for dilation in dilations):
        raise RcompressError(
            node.name, "averages with gaps, which the PyTorch executor does not know", "run it in onnxruntime"
        )
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    if not any(flat):
        result: Tensor = pool(images, kernel, strides)
        return result
    summed: Tensor = pool(F.pad(images, flat), kernel, strides)
    inside = torch.ones_like(images[:1, :1])
    if node.attributes.get("count_include_pad", 0):
        # The declared padding counts, what ceil_mode added does not.
        declared = spatial_pads(node, images, kernel)
        inside = F.pad(inside, declared, value=1.0)
        flat = [grown - given for grown, given in zip(flat, declared, strict=True)]
    return summed / pool(F.pad(inside, flat), kernel, strides)


def pad(node: Node, inputs: Inputs) -> Tensor:
    data = inputs[0]
    pads = integers(node, inputs, 1, "pads") or []
    value = node.attributes.get("value", 0.0)
    if len(inputs) > 2 and inputs[2] is not None:
        value = inputs[2].item()
    axes = integers(node, inputs, 3, "axes") or list(range(data.dim()))
    flat = [0] * (2 * data.dim())
    for position, axis in enumerate(axes):
        place = 2 * (data.dim() - 1 - axis % data.dim())
        flat[place : place + 2] = [pads[position], pads[position + len(axes)]]
    mode = node.attributes.get("mode", b"constant").decode()
    if mode == "constant":
        return F.pad(data, flat, value=value)
    while flat and flat[-2:] == [0, 0]:  # reflection and replication take the spatial axes only
        flat = flat[:-2]
    return F.pad(data, flat, mode={"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode])


def resize(node: Node, inputs: Inputs) -> Tensor:
    """What `torch.nn.functional.interpolate` can do: linear and cubic of images, by pixel centres."""
    given = {name: node.attributes.get(name, default) for name, default in RESIZE_DEFAULTS.items()}
    mode = {b"linear": "bilinear", b"cubic": "bicubic"}.get(given["mode"])
    centres = given["coordinate_transformation_mode"] in (b"half_pixel", b"pytorch_half_pixel")
    if mode is None or not centres or given["keep_aspect_ratio_policy"] != b"stretch":
        raise RcompressError(
            node.name, "resizes in a way that the PyTorch executor does not know", "use bilinear"
        )
    images, sizes = inputs[0], inputs[3] if len(inputs) > 3 else None
    scales = inputs[2].tolist()[2:] if sizes is None else None
    target = None if sizes is None else sizes.tolist()[-2:]
    return F.interpolate(
        images, target, scales, mode, align_corners=False, antialias=bool(given["antialias"])
    )
