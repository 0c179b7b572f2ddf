"""Weights from elsewhere: names mapped to ours, the architecture guessed from the shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from rcompress.models.zoo import CIFAR_DEPTHS, TORCHVISION_RESNETS, build_model

RENAMES = ((re.compile(r"^linear\."), "fc."), (re.compile(r"\.shortcut\."), ".downsample."))
COUNTER = "num_batches_tracked"


class ForeignError(ValueError):
    """The weights do not fit the architecture."""


def module_from_foreign(arch: str, options: Mapping[str, str], state_dict: Mapping[str, Tensor]) -> nn.Module:
    """Build ``arch`` and load ``state_dict``, whose names may follow another project's habits.

    Raises:
        ForeignError: a tensor is missing, left over, or of another shape; the message names the first.
    """
    state = renamed(state_dict)
    module = build_model(arch, num_classes_of(state), **options).eval()
    expected = module.state_dict()
    fixed = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    for name, tensor in expected.items():
        if name not in state and (name.endswith(COUNTER) or name in fixed):
            state[name] = tensor
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        raise ForeignError(
            f"{len(missing)} tensors missing, {len(extra)} unknown (first: {(missing + extra)[0]})"
        )
    for name, tensor in expected.items():
        if tensor.shape != state[name].shape:
            raise ForeignError(f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}")
    module.load_state_dict(state)
    return module


def guess_architectures(state_dict: Mapping[str, Tensor]) -> list[tuple[str, dict[str, str]]]:
    """Every (architecture, options) of ours that these weights fit, by names and shapes alone."""
    found = []
    for arch, options in _candidates():
        try:
            with torch.device("meta"):
                module_from_foreign(arch, options, {k: v.to("meta") for k, v in state_dict.items()})
        except ForeignError:
            continue
        found.append((arch, options))
    return found


def option_words(arch: str, options: Mapping[str, str]) -> str:
    """The command line's words for an architecture: ``--arch resnet32 --shortcut pad``."""
    return " ".join([f"--arch {arch}", *(f"--{name} {value}" for name, value in options.items())])


def renamed(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names (head ``fc``, shortcut ``downsample``)."""
    renamed_state = {}
    for name, tensor in state_dict.items():
        for pattern, replacement in RENAMES:
            name = pattern.sub(replacement, name)
        renamed_state[name] = tensor
    return renamed_state


def num_classes_of(state_dict: Mapping[str, Tensor]) -> int:
    """Outputs of the head: rows of the last two-dimensional weight.

    Raises:
        ForeignError: there is none.
    """
    heads = [tensor for name, tensor in state_dict.items() if name.endswith("weight") and tensor.dim() == 2]
    if not heads:
        raise ForeignError("it has no linear head")
    return int(heads[-1].shape[0])


def _candidates() -> Iterator[tuple[str, dict[str, str]]]:
    for arch in CIFAR_DEPTHS:
        yield from ((arch, {"shortcut": kind}) for kind in ("projection", "pad"))
    for arch in TORCHVISION_RESNETS:
        yield from ((arch, {"stem": kind}) for kind in ("cifar", "imagenet"))
