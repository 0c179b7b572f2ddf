"""The structure of factorized layers: what a checkpoint's shapes cannot say, as a named transform of the base.

A transform is ``{"name": "factorized", "layers": {layer: scheme}}``. Transforms are applied in their order, so that a
factor may be factorized again; shapes come afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from torch import nn

from rcompress.errors import RcompressError

Scheme = Literal["channel", "spatial", "tucker", "linear"]
TRANSFORM = "factorized"


def factorized_transform(schemes: Mapping[str, Scheme]) -> dict[str, Any]:
    """The entry of `ModelSpec.transforms` for layers (by name) that were factorized."""
    return {"name": TRANSFORM, "layers": dict(schemes)}


def apply_transforms(module: nn.Module, transforms: Sequence[Mapping[str, Any]]) -> None:
    """Give ``module`` the structure that ``transforms`` name, in place; the ranks are placeholders of one.

    Raises:
        RcompressError: a transform is not known.
        ValueError: it names a layer that cannot be factorized so.
        AttributeError: it names a layer that is not there.
    """
    for transform in transforms:
        if transform.get("name") != TRANSFORM:
            raise RcompressError(
                "its model", f"unknown transform {transform.get('name')!r}", "use a newer rcompress"
            )
        layers = transform.get("layers")
        if not isinstance(layers, Mapping):
            raise ValueError("a transform names no layers")
        for name, scheme in layers.items():
            if not isinstance(name, str):
                raise ValueError(f"a transform names a layer {name!r}")
            replace_layer(module, name, factors(module.get_submodule(name), scheme, (1, 1)))


def replace_layer(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Put ``layer`` where ``name`` says."""
    owner, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(owner), attribute, layer)


def factors(layer: nn.Module, scheme: Scheme, ranks: Sequence[int]) -> nn.Sequential:
    """Fresh layers whose product stands for ``layer``.

    Args:
        layer: a convolution without groups, or for ``linear`` a linear layer.
        scheme: ``channel``: k x k with rank outputs, then 1 x 1 (Zhang et al. 2016, section 3.1); ``spatial``:
            k x 1, then 1 x k (Jaderberg et al. 2014, scheme 2); ``tucker``: 1 x 1, k x k, 1 x 1 (Kim et al. 2016,
            section 3.1); ``linear``: two matrices.
        ranks: one, or for ``tucker`` those of inputs and outputs.

    Raises:
        ValueError: the scheme is unknown or not for such a layer.
    """
    bias = getattr(layer, "bias", None) is not None
    if isinstance(layer, nn.Linear) and scheme == "linear":
        first = nn.Linear(layer.in_features, ranks[0], bias=False)
        return nn.Sequential(first, nn.Linear(ranks[0], layer.out_features, bias))
    if not (isinstance(layer, nn.Conv2d) and layer.groups == 1 and scheme in get_args(Scheme)[:3]):
        raise ValueError(f"a {type(layer).__name__} cannot be factorized by {scheme!r}")
    inputs, outputs = layer.in_channels, layer.out_channels
    if scheme == "channel":
        return nn.Sequential(_like(layer, inputs, ranks[0]), nn.Conv2d(ranks[0], outputs, 1, bias=bias))
    if scheme == "spatial":
        return nn.Sequential(
            _like(layer, inputs, ranks[0], axis=0), _like(layer, ranks[0], outputs, axis=1, bias=bias)
        )
    return nn.Sequential(
        nn.Conv2d(inputs, ranks[0], 1, bias=False),
        _like(layer, ranks[0], ranks[1]),
        nn.Conv2d(ranks[1], outputs, 1, bias=bias),
    )


def _like(
    layer: nn.Conv2d, inputs: int, outputs: int, axis: int | None = None, bias: bool = False
) -> nn.Conv2d:
    """``layer`` with other channels; with an ``axis`` it acts along that one alone."""

    def along(values: Sequence[int], neutral: int) -> tuple[int, int]:
        kept = [value if axis in (None, position) else neutral for position, value in enumerate(values)]
        return kept[0], kept[1]

    return nn.Conv2d(
        inputs,
        outputs,
        along(layer.kernel_size, 1),
        along(layer.stride, 1),
        layer.padding if isinstance(layer.padding, str) else along(layer.padding, 0),
        along(layer.dilation, 1),
        bias=bias,
        padding_mode=layer.padding_mode,
    )
