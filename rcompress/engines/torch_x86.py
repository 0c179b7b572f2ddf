"""PyTorch's own INT8 on x86 (FX graph mode, fbgemm and oneDNN kernels): the baseline our engines are held against.

The engine is a file of tensors alone (``NAME.x86``): INT8 weights, scales and zero points by the name of the layer
that they belong to, and the shapes of the network that they were made from. To load it the network is built in
those shapes, prepared and converted as before, and given the tensors; nothing in the file is code.
"""

from __future__ import annotations

import copy
import io
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from rcompress.artifacts.checkpoint import checked_tensors, load_tensors
from rcompress.artifacts.files import sha256_of, write_atomic
from rcompress.artifacts.spec import ModelSpec, SpecError
from rcompress.engines.base import EngineInfo, RunOptions
from rcompress.engines.pytorch import MATRIX_MODULES, TorchEngine
from rcompress.errors import RcompressError
from rcompress.models.rebuild import rebuild
from rcompress.models.zoo import is_own

FORMAT = "rcompress-x86/1"
QENGINE = "x86"
SCALES, ZERO_POINTS = "|scales", "|zero_points"
DTYPES = {"torch.float32": torch.float32, "torch.int64": torch.int64}
LARGEST_GROWTH = 8
"""At most so many values may a network have for each that its file holds."""
BROKEN = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What PyTorch raises for tensors that do not make the network they claim to be."""


def convert(module: nn.Module, batches: Iterable[Tensor], subject: str | Path) -> nn.Module:
    """Quantize ``module`` by PyTorch's defaults for x86: weights per channel, activations by histogram.

    Args:
        module: in evaluation mode, on the CPU; it is not changed.
        batches: network inputs (N, C, H, W) float32, to calibrate with.

    Raises:
        RcompressError: no images, or PyTorch cannot trace the network or has no such kernels here.
    """
    prepared: GraphModule | None = None
    with _quiet(subject), torch.inference_mode():
        for images in batches:
            prepared = prepared or _prepared(module, images, subject)
            prepared(images)
        if prepared is None:
            raise RcompressError(subject, "saw no images", "give more with --calib-images")
        return _converted(prepared)


def write(path: Path, spec: ModelSpec, base: Mapping[str, Tensor], converted: nn.Module) -> Path:
    """Write ``converted``, made by `convert` of a network whose state dict is ``base``."""
    tensors: dict[str, Tensor] = {}
    for name, value in converted.state_dict().items():
        tensors |= {key: tensor.detach().contiguous().clone() for key, tensor in _plain(name, value).items()}
    shapes = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in base.items()}
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "model": spec.to_dict(), "shapes": shapes, "state_dict": tensors}, buffer)
    return write_atomic(path, buffer.getvalue())


def load(path: Path, options: RunOptions = RunOptions()) -> TorchEngine:
    """Load what `write` wrote; it runs on the CPU.

    Raises:
        RcompressError: another kind of file, or its tensors do not make the network it names.
    """
    spec, base, tensors = _read(path)
    if spec.arch is not None and is_own(spec.arch) and options.arch != spec.arch:
        raise RcompressError(
            path, f"was built by {spec.arch}, code that a file alone must not run", f"add --arch {spec.arch}"
        )
    try:
        with _quiet(path), torch.inference_mode():
            images = torch.zeros(1, *spec.preprocessing.input_size)
            prepared = _prepared(rebuild(spec, base), images, path)
            prepared(images)
            module = _converted(prepared)
            state = module.state_dict()  # a plain dictionary would lack the version of the packed weights
            state.update({name: _packed(name, value, tensors) for name, value in state.items()})
            module.load_state_dict(state)
    except BROKEN as error:
        reason = str(error).strip().splitlines()[-1]
        raise RcompressError(
            path, f"its tensors do not make a {spec.arch} ({reason})", "build it again"
        ) from None
    info = EngineInfo(
        backend="torch-x86",
        path=path,
        sha256=sha256_of(path),
        spec=spec,
        input_shape=(None, *spec.preprocessing.input_size),
        executed=executed_precisions(module),
    )
    return TorchEngine(module, info, RunOptions("cpu", options.threads))


def executed_precisions(converted: nn.Module) -> dict[str, int]:
    """Convolution and matrix layers, counted by the precision they run in."""
    from torch.ao.nn.quantized.modules.utils import WeightedQuantizedModule

    counts: Counter[str] = Counter()
    for layer in converted.modules():
        if isinstance(layer, WeightedQuantizedModule):
            counts["I8"] += 1
        elif isinstance(layer, MATRIX_MODULES):
            counts["F32"] += 1
    return dict(counts)


def _read(path: Path) -> tuple[ModelSpec, dict[str, Tensor], dict[str, Tensor]]:
    """Description, the network's tensors as zeros of their shapes, and the tensors stored."""
    content = load_tensors(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RcompressError(path, "is no torch-x86 engine", "build it: rcompress build-engine")
    try:
        spec = ModelSpec.from_dict(content.get("model"))
        tensors = checked_tensors(content.get("state_dict"))
        shapes = {
            str(name): (DTYPES[dtype], _sizes(sizes)) for name, (dtype, *sizes) in content["shapes"].items()
        }
        stored = sum(tensor.numel() for tensor in tensors.values())
        if sum(math.prod(sizes) for _, sizes in shapes.values()) > LARGEST_GROWTH * stored:
            raise SpecError("its shapes claim more values than the file holds")
    except (SpecError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RcompressError(path, f"its description is broken ({error})", "build it again") from None
    return spec, {name: torch.zeros(sizes, dtype=dtype) for name, (dtype, sizes) in shapes.items()}, tensors


def _sizes(sizes: list[Any]) -> list[int]:
    if not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise SpecError("a shape is not of whole numbers")
    return sizes


def _plain(name: str, value: Any) -> dict[str, Tensor]:
    """An entry of a converted state dict as ordinary tensors: integers, scales and zero points apart."""
    if isinstance(value, tuple):
        return {
            key: part for i, each in enumerate(value) for key, part in _plain(f"{name}|{i}", each).items()
        }
    if not isinstance(value, Tensor):
        return {}
    if not value.is_quantized:
        return {name: value}
    scales, zeros = value.q_per_channel_scales(), value.q_per_channel_zero_points()
    return {name: value.int_repr(), f"{name}{SCALES}": scales, f"{name}{ZERO_POINTS}": zeros}


def _packed(name: str, template: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The entry as the converted module takes it; the template says of what kind it is."""
    if isinstance(template, tuple):
        return tuple(_packed(f"{name}|{i}", each, tensors) for i, each in enumerate(template))
    if not isinstance(template, Tensor):
        return template
    found = tensors[name]
    if found.shape != template.shape:
        raise ValueError(f"{name} has the shape {tuple(found.shape)}, not {tuple(template.shape)}")
    if not template.is_quantized:
        return found
    if found.dtype != torch.int8:
        raise ValueError(f"{name} is {found.dtype}, not INT8")
    scales, zeros = tensors[f"{name}{SCALES}"], tensors[f"{name}{ZERO_POINTS}"]
    if scales.shape != found.shape[:1] or zeros.shape != found.shape[:1]:
        raise ValueError(f"{name} has no scale for each channel")
    return torch._make_per_channel_quantized_tensor(found, scales, zeros, 0)


def _prepared(module: nn.Module, images: Tensor, subject: str | Path) -> GraphModule:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_fx

    try:
        prepared: GraphModule = prepare_fx(
            _plain_convolutions(module), get_default_qconfig_mapping(QENGINE), (images,)
        )
    except Exception as error:  # tracing runs the network's own code, which may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RcompressError(
            subject, f"PyTorch cannot trace it ({reason})", "use --backend openvino"
        ) from None
    return prepared


def _plain_convolutions(module: nn.Module) -> nn.Module:
    """A copy whose subclasses of a convolution are the convolution itself: FX takes layers it does not know apart."""
    copied = copy.deepcopy(module)
    for layer in copied.modules():
        if isinstance(layer, nn.Conv2d) and type(layer).forward is nn.Conv2d.forward:
            layer.__class__ = nn.Conv2d
    return copied


def _converted(prepared: GraphModule) -> nn.Module:
    from torch.ao.quantization.quantize_fx import convert_fx

    converted: nn.Module = convert_fx(prepared)
    return converted


@contextmanager
def _quiet(subject: str | Path) -> Iterator[None]:
    """PyTorch's x86 kernels chosen, its announcements that this API will end unheard."""
    if QENGINE not in torch.backends.quantized.supported_engines:
        raise RcompressError(subject, "PyTorch has no x86 INT8 kernels here", "use --backend onnxruntime")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = QENGINE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.quantized.engine = before
