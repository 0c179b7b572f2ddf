"""A network's features: where its stages end, and what comes out there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rcompress.errors import RcompressError

EMBEDDING = "embedding"
"""The name under which the input of the last linear layer is kept."""


class Watch:
    """Keeps what named layers put out (float32) while `on`; nothing of the network is changed.

    Args:
        module: the network.
        layers: names of modules whose output is one tensor; `EMBEDDING` for what the head is given.
    """

    def __init__(self, module: nn.Module, layers: Sequence[str]) -> None:
        self.module = module
        self.layers = tuple(layers)
        self.kept: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def on(self) -> None:
        """Begin to keep."""
        for name in self.layers:
            if name == EMBEDDING:
                hook = head(self.module).register_forward_pre_hook(self._keep_input)
            else:
                hook = self.module.get_submodule(name).register_forward_hook(self._keeper(name))
            self._handles.append(hook)

    def off(self) -> dict[str, Tensor]:
        """End, and hand over what the last forward pass left."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        kept, self.kept = self.kept, {}
        return kept

    def _keeper(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(_: nn.Module, __: Any, output: Tensor) -> None:
            self.kept[name] = output.to(torch.float32, copy=True)  # what follows may write into it

        return keep

    def _keep_input(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.kept[EMBEDDING] = inputs[0].float()


def head(module: nn.Module) -> nn.Linear:
    """The last linear layer.

    Raises:
        RcompressError: there is none.
    """
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise RcompressError(
            "distillation",
            "a network has no linear layer, whose input relations are among",
            "use another loss",
        )
    return linear[-1]


def feature_shapes(
    module: nn.Module, input_size: tuple[int, int, int]
) -> dict[str, tuple[int, int, int, int]]:
    """Shapes (1, C, H, W) of what each module makes of one image of ``input_size``, in order of completion."""
    found: dict[str, tuple[int, int, int, int]] = {}

    def watcher(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4:
                found.pop(name, None)  # of a module that runs again, the last time counts
                batch, channels, height, width = output.shape
                found[name] = (batch, channels, height, width)

        return note

    training, device = module.training, next(module.parameters()).device
    handles = [layer.register_forward_hook(watcher(name)) for name, layer in module.named_modules() if name]
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, *input_size, device=device))
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
    return found


def stage_ends(shapes: Mapping[str, tuple[int, int, int, int]]) -> dict[tuple[int, int], str]:
    """For every height and width above 1 x 1, the last module to complete a feature map of that size."""
    return {(height, width): name for name, (_, _, height, width) in shapes.items() if height * width > 1}
