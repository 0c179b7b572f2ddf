"""Whether a network answers the images that it is described to take."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from rcompress.artifacts.spec import ModelSpec
from rcompress.errors import RcompressError

REMEDY = "choose another --arch, --dataset or --image-size"


def require_logits(module: nn.Module, spec: ModelSpec, subject: str | Path) -> None:
    """Give ``module`` one image as ``spec`` describes it.

    Raises:
        RcompressError: it does not take it, or answers with anything but a logit for each class.
    """
    size = spec.preprocessing.input_size
    images = f"images of {' x '.join(map(str, size))} ({spec.preprocessing.dataset or 'as described'})"
    was_training = module.training
    try:
        with torch.no_grad():
            logits = module.eval()(torch.zeros(1, *size))
    except Exception as error:  # torchvision's networks and the user's raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RcompressError(subject, f"does not take {images}: {reason}", REMEDY) from None
    finally:
        module.train(was_training)
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, spec.num_classes):
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise RcompressError(
            subject, f"makes {found} of one of the {images}, not (1, {spec.num_classes})", REMEDY
        )
