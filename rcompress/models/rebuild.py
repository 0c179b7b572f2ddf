"""Checkpoint -> module: the named base takes the shapes and dtypes of the saved tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rcompress.artifacts.checkpoint import ForeignCheckpointError, read_checkpoint
from rcompress.artifacts.spec import ModelSpec
from rcompress.errors import RcompressError
from rcompress.models.factorized import apply_transforms
from rcompress.models.foreign import guess_architectures, option_words
from rcompress.models.zoo import build_model, is_own

HALVES = (torch.float16, torch.bfloat16)
DRAWING = (Tensor.normal_, Tensor.uniform_)


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode on the CPU, with its description and its file's hash.

    Attributes:
        module: in FP32, also where the file's tensors are in half precision.
        packed_bytes: what the file's weights take where they are stored as codes, else None.
        stored: the type of the file's floating-point tensors.
    """

    path: Path
    module: nn.Module
    spec: ModelSpec
    sha256: str
    packed_bytes: int | None = None
    stored: torch.dtype = torch.float32


def load_model(path: Path, own_arch: str | None = None) -> LoadedModel:
    """Open a checkpoint and rebuild its network.

    Args:
        path: an rcompress checkpoint.
        own_arch: the user's architecture (``package.module:callable``), which a file may name but never import.

    Raises:
        RcompressError: the file cannot be read, or its tensors do not make the network it names.
    """
    try:
        checkpoint = read_checkpoint(path)
    except ForeignCheckpointError as error:
        raise RcompressError(path, error.fault, _import_command(error)) from None
    spec = checkpoint.spec
    if spec.arch is None:
        raise RcompressError(path, "names no architecture", "import it again with --arch")
    if is_own(spec.arch) and own_arch != spec.arch:
        raise RcompressError(
            path, f"was built by {spec.arch}, code that a file alone must not run", f"add --arch {spec.arch}"
        )
    try:
        module = rebuild(spec, _widened(checkpoint.state_dict))
    except RcompressError as error:
        raise RcompressError(path, f"{error.subject}: {error.fault}", error.remedy) from None
    except (AttributeError, RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise RcompressError(
            path, f"its tensors do not make a {spec.arch} ({reason})", "write or import it again"
        ) from None
    stored = _stored_type(checkpoint.state_dict)
    return LoadedModel(path, module, spec, checkpoint.sha256, checkpoint.packed_bytes, stored)


def _stored_type(state_dict: Mapping[str, Tensor]) -> torch.dtype:
    """Of the first tensor in half precision, which all others share in files of ours; else FP32."""
    kinds = (tensor.dtype for tensor in state_dict.values())
    return next((kind for kind in kinds if kind in HALVES), torch.float32)


def _widened(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Half precision saves space; what is done with a network (pruning, training, export) is done in FP32."""
    return {name: tensor.float() if tensor.dtype in HALVES else tensor for name, tensor in state_dict.items()}


def _import_command(error: ForeignCheckpointError) -> str:
    """The command that turns foreign weights into a checkpoint, as far as their shapes tell."""
    fitting = guess_architectures(error.state_dict)
    words = option_words(*fitting[0]) if fitting else "--arch package.module:callable"
    return f"import it first: rcompress import {error.path} {words} --dataset NAME"


def rebuild(spec: ModelSpec, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """Build the base, apply its transforms, give it the tensors' shapes, load strictly, check by one forward pass.

    Raises:
        RcompressError, RuntimeError, ValueError: names or shapes do not fit, or the forward pass fails.
    """
    assert spec.arch is not None
    module = _base(spec.arch, spec).eval()
    with torch.device("meta"):  # whatever the base: its factors get their tensors below
        apply_transforms(module, spec.transforms)
    take_shapes(module, state_dict)
    module.load_state_dict(state_dict, strict=True, assign=True)
    with torch.inference_mode():
        logits = module(torch.zeros(1, *spec.preprocessing.input_size))
    if logits.shape != (1, spec.num_classes):
        raise ValueError(f"its outputs have the shape {tuple(logits.shape)}, not (1, {spec.num_classes})")
    return module


def _base(arch: str, spec: ModelSpec) -> nn.Module:
    """On the meta device, so that nothing is allocated that the file does not hold.

    On the CPU where that cannot be: the user's own, and torchvision's RegNets, which compute their widths in tensors.
    """
    if not is_own(arch):
        with _NothingDrawn():
            try:
                with torch.device("meta"):
                    return build_model(arch, spec.num_classes, **spec.options)
            except NotImplementedError:  # memory that is only asked for, never written, costs nothing
                return build_model(arch, spec.num_classes, **spec.options)
    return build_model(arch, spec.num_classes, **spec.options)


class _NothingDrawn(TorchFunctionMode):
    """Leave out what draws initial weights: there is nowhere to put them, and the meta device's way takes seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in DRAWING or getattr(func, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


def take_shapes(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Give every parameter and buffer the shape and dtype of its namesake, and the layers their attributes."""
    for prefix, layer in module.named_modules():
        own = {name: state_dict.get(f"{prefix}.{name}" if prefix else name) for name in _tensor_names(layer)}
        for name, saved in own.items():
            if saved is not None:
                _reshape(layer, name, saved)
        if own.get("weight") is not None:
            _set_attributes(layer, own["weight"])  # type: ignore[arg-type]


def _tensor_names(layer: nn.Module) -> list[str]:
    tensors = {**layer._parameters, **layer._buffers}
    return [name for name, tensor in tensors.items() if tensor is not None]


def _reshape(layer: nn.Module, name: str, saved: Tensor) -> None:
    current: Tensor = getattr(layer, name)
    if current.shape == saved.shape and current.dtype == saved.dtype:
        return
    fresh = torch.empty(saved.shape, dtype=saved.dtype, device=current.device)
    if name in layer._parameters:
        setattr(layer, name, nn.Parameter(fresh, requires_grad=current.requires_grad))
    else:
        layer._buffers[name] = fresh


def _set_attributes(layer: nn.Module, weight: Tensor) -> None:
    """Set what a layer derives from its weight: (out, in / groups, kh, kw) for convolutions."""
    if isinstance(layer, nn.Conv2d):
        # Depthwise: each input has its own filters.
        if layer.groups > 1 and layer.groups == layer.in_channels:
            layer.groups = weight.shape[0] // (layer.out_channels // layer.in_channels)
        layer.out_channels = weight.shape[0]
        layer.in_channels = weight.shape[1] * layer.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = weight.shape
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
        layer.num_features = weight.shape[0]
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = tuple(weight.shape)
