"""Architectures by name: one table, and the user's own as ``package.module:callable``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from torch import nn

from rcompress.errors import RcompressError
from rcompress.models.cifar_resnet import CifarResNet

CIFAR_DEPTHS = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9, "resnet110": 18}
TORCHVISION_RESNETS = ("resnet18", "resnet34", "resnet50")
ARCHITECTURES = (*CIFAR_DEPTHS, *TORCHVISION_RESNETS)
OPTIONS = {"shortcut": ("projection", "pad"), "stem": ("cifar", "imagenet")}
TORCHVISION_PREFIX = "torchvision:"
WITHOUT_HEADS = {"aux_logits": False, "init_weights": False}
AUXILIARY_HEADS = ("googlenet", "inception_v3")
"""While training, these would answer with several sets of logits; they warn unless told how to start."""


def build_model(arch: str, num_classes: int, **options: str) -> nn.Module:
    """A freshly initialised network.

    Args:
        arch: a name of `ARCHITECTURES`, ``torchvision:NAME``, or ``package.module:callable``; the callable is
            given ``num_classes`` and returns a module from (N, C, H, W) to (N, classes).
        num_classes: outputs of the head.
        options: ``shortcut`` (CIFAR family) or ``stem`` (torchvision's ResNets).

    Raises:
        RcompressError: the name or an option is unknown, or the user's callable fails.
    """
    if arch in CIFAR_DEPTHS:
        chosen = _options(arch, options, shortcut="projection")
        return CifarResNet(CIFAR_DEPTHS[arch], num_classes, chosen["shortcut"])  # type: ignore[arg-type]
    if arch in TORCHVISION_RESNETS:
        return _torchvision_resnet(arch, num_classes, _options(arch, options, stem="cifar")["stem"])
    _options(arch, options)
    if arch.startswith(TORCHVISION_PREFIX):
        return _torchvision_model(arch.removeprefix(TORCHVISION_PREFIX), num_classes)
    if ":" in arch:
        return _own_model(arch, num_classes)
    raise RcompressError(arch, "unknown architecture", f"choose one of {', '.join(ARCHITECTURES)}")


def is_own(arch: str) -> bool:
    """Whether ``arch`` names the user's code, which a file alone must never make us import."""
    return ":" in arch and not arch.startswith(TORCHVISION_PREFIX)


def is_torchvisions(arch: str) -> bool:
    """Whether torchvision builds it."""
    return arch in TORCHVISION_RESNETS or arch.startswith(TORCHVISION_PREFIX)


def _options(arch: str, given: dict[str, str], **defaults: str) -> dict[str, str]:
    for name, value in given.items():
        if name not in defaults:
            raise RcompressError(arch, f"has no option {name!r}", f"leave --{name} out")
        if value not in OPTIONS[name]:
            raise RcompressError(
                arch, f"unknown {name} {value!r}", f"choose one of {', '.join(OPTIONS[name])}"
            )
    return defaults | given


def _torchvision_resnet(name: str, num_classes: int, stem: str) -> nn.Module:
    from torchvision import models  # here and below: it takes seconds, and most networks need none of it

    module: nn.Module = getattr(models, name)(num_classes=num_classes)
    if stem == "cifar":
        module.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(module.conv1.weight, mode="fan_out", nonlinearity="relu")
        module.maxpool = nn.Identity()
    return module


def _torchvision_model(name: str, num_classes: int) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise RcompressError(
            name, "torchvision has no such classifier", "see torchvision.models.list_models()"
        )
    plain = WITHOUT_HEADS if name in AUXILIARY_HEADS else {}
    module: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **plain)
    return module


def _own_model(arch: str, num_classes: int) -> nn.Module:
    module_name, _, attribute = arch.partition(":")
    build = _import_callable(arch, module_name, attribute)
    try:
        module = build(num_classes=num_classes)
    except Exception as error:  # the user's code may raise anything; the one line says what it raised
        raise RcompressError(
            arch, f"failed when called with num_classes={num_classes} ({error!r})", "mend that callable"
        ) from error
    if not isinstance(module, nn.Module):
        raise RcompressError(arch, f"returned {type(module).__name__}", "return a torch.nn.Module")
    return module


def _import_callable(arch: str, module_name: str, attribute: str) -> Callable[..., object]:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise RcompressError(arch, f"cannot be imported ({error})", "give package.module:callable") from error
    if not callable(found):
        raise RcompressError(arch, "is not callable", "name a function or a class")
    return found  # type: ignore[no-any-return]
