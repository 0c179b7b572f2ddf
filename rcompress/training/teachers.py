"""Frozen networks that teach: checkpoints, ONNX files, engines; one or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rcompress.artifacts.onnx_file import read_onnx
from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.engines import RunOptions, load_engine
from rcompress.engines.evaluation import run_padded
from rcompress.engines.graph_io import graph_input, shape_of
from rcompress.engines.torch_graph import TorchGraph
from rcompress.errors import RcompressError
from rcompress.models import load_model
from rcompress.training.guidance import Batch
from rcompress.training.settings import Settings


@dataclass(frozen=True)
class Member:
    """One frozen network that teaches.

    Attributes:
        path, sha256: the file it came from.
        spec: what the file says of it.
        run: from its own inputs (N, C, H, W) to logits (N, classes).
        module: the network whose layers can be looked at; None where a graph or an engine runs.
        batch: images per call, None where that is free.
    """

    path: Path
    sha256: str
    spec: ModelSpec
    run: Callable[[Tensor], Tensor]
    module: nn.Module | None = None
    batch: int | None = None


class Teacher:
    """One or several members, fed with what the student is fed.

    Args:
        members: at least one.
        student: whose inputs come; they are normalised again for members that expect another mean or std.
        settings: device and number format of the forward passes.

    Raises:
        RcompressError: a member has other classes or takes images of another size.
    """

    def __init__(self, members: Sequence[Member], student: ModelSpec, settings: Settings) -> None:
        for member in members:
            _check(member, student)
        self.members = tuple(members)
        self.preprocessing = student.preprocessing
        self.settings = settings

    def of(self, batch: Batch) -> Tensor:
        """float32 (members, N, classes) of a batch as the student sees it."""
        return self.logits(batch.inputs)

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """float32 (members, N, classes) of the student's ``inputs`` (N, C, H, W)."""
        with self.settings.autocast():
            answers = [self._answer(member, inputs) for member in self.members]
        return torch.stack([answer.float() for answer in answers])

    def inputs_of(self, member: Member, inputs: Tensor) -> Tensor:
        """What ``member`` takes in place of the student's ``inputs``."""
        return _renormalized(inputs, self.preprocessing, member.spec.preprocessing)

    def identity(self) -> dict[str, Any]:
        """Primitives that tell this teacher from others."""
        return {"teachers": [member.sha256 for member in self.members]}

    def _answer(self, member: Member, inputs: Tensor) -> Tensor:
        images = self.inputs_of(member, inputs)
        if member.batch is None:
            return member.run(images)
        return torch.cat(
            [_padded(member.run, part, member.batch) for part in torch.split(images, member.batch)]
        )


def open_teacher(
    paths: Sequence[Path], student: ModelSpec, settings: Settings, own_arch: str | None = None
) -> Teacher:
    """The files of ``paths`` as one teacher of ``student``.

    Raises:
        RcompressError: see `load_member` and `Teacher`.
    """
    return Teacher([load_member(path, settings, own_arch) for path in paths], student, settings)


def load_member(path: Path, settings: Settings, own_arch: str | None = None) -> Member:
    """Load a checkpoint, an ONNX file (run by our executor, so on a GPU too) or an engine, frozen.

    Args:
        path: the file.
        settings: of the run.
        own_arch: the user's architecture, for a checkpoint built by it.

    Raises:
        RcompressError: the file cannot be run, or says nothing of its images.
    """
    if path.suffix == ".pth":
        loaded = load_model(path, own_arch)
        module = _frozen(loaded.module, settings)
        return Member(path, loaded.sha256, loaded.spec, module, module)
    if path.suffix == ".onnx":
        found = read_onnx(path)
        graph = _frozen(TorchGraph(found.model, str(path)), settings)
        batch = shape_of(graph_input(found.model, str(path)))[0]
        return Member(path, found.sha256, _described(path, found.spec), graph, batch=batch)
    return _from_engine(path)


def _from_engine(path: Path) -> Member:
    """Where it runs, which need not be where the student is trained."""
    engine = load_engine(path, None, RunOptions("auto", torch.get_num_threads()))

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(run_padded(engine, images.cpu().numpy())).to(images.device)

    info = engine.info
    return Member(path, info.sha256, _described(path, info.spec), run)


def _frozen(module: nn.Module, settings: Settings) -> nn.Module:
    frozen = module.eval().requires_grad_(False).to(settings.device)
    return frozen.to(memory_format=torch.channels_last)


def _described(path: Path, spec: ModelSpec | None) -> ModelSpec:
    if spec is None:
        raise RcompressError(
            path, "does not say how its images are prepared", "teach with a file that rcompress has written"
        )
    return spec


def _check(member: Member, student: ModelSpec) -> None:
    own, wanted = member.spec.preprocessing, student.preprocessing
    if member.spec.num_classes != student.num_classes or _differ(own.class_names, wanted.class_names):
        raise RcompressError(
            member.path,
            f"tells {_classes(member.spec)} apart, the student {_classes(student)}",
            "take a teacher of the student's classes",
        )
    if own.input_size != wanted.input_size:
        raise RcompressError(
            member.path,
            f"takes images of {_size(own)}, the student of {_size(wanted)}",
            "take a teacher of the student's image size",
        )


def _differ(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return bool(one and other and one != other)


def _classes(spec: ModelSpec) -> str:
    return f"{spec.num_classes} classes of {spec.preprocessing.dataset or 'unknown data'}"


def _size(preprocessing: Preprocessing) -> str:
    return " x ".join(str(side) for side in preprocessing.input_size)


def _renormalized(inputs: Tensor, have: Preprocessing, want: Preprocessing) -> Tensor:
    """float32 (N, C, H, W) normalised as ``want`` says, or the bytes (N, H, W, C) of a graph that normalises."""
    if want.in_graph:
        bytes_ = _affine(inputs, _times(have.std, 255.0), _times(have.mean, 255.0)).round_().clamp_(0, 255)
        return bytes_.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    if (have.mean, have.std) == (want.mean, want.std):
        return inputs
    scale = [mine / theirs for mine, theirs in zip(have.std, want.std, strict=True)]
    shift = [(m - t) / s for m, t, s in zip(have.mean, want.mean, want.std, strict=True)]
    return _affine(inputs, scale, shift)


def _times(values: Sequence[float], factor: float) -> list[float]:
    return [value * factor for value in values]


def _affine(inputs: Tensor, scale: Sequence[float], shift: Sequence[float]) -> Tensor:
    per_channel = (1, -1, 1, 1)
    factor = torch.tensor(scale, device=inputs.device).view(per_channel)
    return inputs * factor + torch.tensor(shift, device=inputs.device).view(per_channel)


def _padded(run: Callable[[Tensor], Tensor], images: Tensor, batch: int) -> Tensor:
    """Logits of at most ``batch`` images from a network that takes exactly so many."""
    missing = batch - len(images)
    return run(F.pad(images, (0,) * 6 + (0, missing)))[: len(images)] if missing else run(images)
