"""What a model file says of itself: architecture, preprocessing, lineage. Primitives only, checked on reading."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from rcompress.artifacts.invocation import INVOCATION
from rcompress.artifacts.machine import machine_summary, package_versions

FORMAT = "rcompress/1"
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".th", ".pt2")
"""Ours is the first; the others are foreign weights to be imported, or programs to be refused, by name."""
Interpolation = Literal["bilinear", "bicubic"]
ChoiceSplit = Literal["validation", "test-a"]
MAX_SIDE = 1024  # of a network's input: a file must not make us run it on gigapixels
ARCH_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,120}")


class SpecError(ValueError):
    """A description that breaks the format; readers turn it into an error that names the file."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input, and what its outputs mean.

    Attributes:
        input_size: (channels, height, width) of the network's input.
        mean, std: per channel, for pixels scaled to 0..1.
        dataset: the dataset's name (``cifar10``, ``imagefolder:PATH``), None where it is not known.
        class_names: one per output, empty where they are not known.
        resize: shorter side in pixels before the centre crop, None for no resizing.
        interpolation: how ``resize`` resamples.
        in_graph: the graph takes uint8 images (N, H, W, 3) and does all this itself.
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dataset: str | None = None
    class_names: tuple[str, ...] = ()
    resize: int | None = None
    interpolation: Interpolation = "bilinear"
    in_graph: bool = False

    def __post_init__(self) -> None:
        channels, height, width = self.input_size
        if not (1 <= channels <= 16 and 1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
            raise SpecError(f"input size {self.input_size} is out of range (sides of at most {MAX_SIDE})")
        if len(self.mean) != channels or len(self.std) != channels:
            raise SpecError(f"mean and std need {channels} values each")
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)):
            raise SpecError("mean and std must be finite")
        if any(value <= 0 for value in self.std):
            raise SpecError("std must be positive")
        if self.interpolation not in get_args(Interpolation):
            raise SpecError(f"unknown interpolation {self.interpolation!r}")
        if self.resize is not None and not 1 <= self.resize <= 2 * MAX_SIDE:
            raise SpecError(f"resize {self.resize} is out of range")


@dataclass(frozen=True)
class Step:
    """One command in an artifact's history.

    ``chosen_on`` names the split whose labels decided something in this step (best epoch, a ratio), None where
    nothing was chosen; ``metrics`` uses the records' vocabulary; ``invocation`` is what was typed, for people
    to type again, where ``options`` is all that it meant.
    """

    command: str
    options: dict[str, Any] = field(default_factory=dict)
    parent_name: str | None = None
    parent_sha256: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    chosen_on: ChoiceSplit | None = None
    created: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )
    machine: dict[str, Any] = field(default_factory=machine_summary)
    versions: dict[str, str] = field(default_factory=package_versions)
    invocation: tuple[str, ...] = field(default_factory=INVOCATION.get)


@dataclass(frozen=True)
class ModelSpec:
    """The ``model`` entry of a checkpoint, also stamped into ONNX files and engine sidecars.

    Attributes:
        arch: a builder's name (``resnet20``, ``package.module:callable``), None for a foreign graph.
        num_classes: outputs of the head.
        options: the builder's options (``{"stem": "cifar"}``).
        transforms: what the saved shapes cannot say, in the order of application.
        preprocessing: see there.
        lineage: the whole history, oldest first.
    """

    num_classes: int
    preprocessing: Preprocessing
    arch: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    transforms: tuple[dict[str, Any], ...] = ()
    lineage: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.num_classes <= 1_000_000:
            raise SpecError(f"{self.num_classes} classes is out of range")
        if self.arch is not None and not ARCH_NAME.fullmatch(self.arch):
            raise SpecError(f"{self.arch!r} is no architecture's name")
        if self.preprocessing.class_names and len(self.preprocessing.class_names) != self.num_classes:
            raise SpecError(
                f"{len(self.preprocessing.class_names)} class names for {self.num_classes} classes"
            )

    def with_step(self, step: Step) -> ModelSpec:
        """The same model, one step later."""
        return replace(self, lineage=(*self.lineage, step))

    @property
    def network(self) -> dict[str, Any]:
        """What was built, for the options of the step that trained it: architecture, options, side of the images."""
        return {"arch": self.arch, **self.options, "image_size": self.preprocessing.input_size[-1]}

    @property
    def imported(self) -> bool:
        """Whether the weights came from elsewhere, so that they may have seen any split of the data."""
        return self.arch is None or any(step.command == "import" for step in self.lineage)

    @property
    def choice_split(self) -> ChoiceSplit:
        """The split on which a choice may be made for this model."""
        return "test-a" if self.imported else "validation"

    @property
    def report_split(self) -> str:
        """The split on which this model's results are reported: one that chose nothing."""
        return "test-b" if any(step.chosen_on == "test-a" for step in self.lineage) else "test"

    def to_dict(self) -> dict[str, Any]:
        """Primitives (dict, list, str, int, float, bool, None) that `from_dict` reads back."""
        return _plain(asdict(self))  # type: ignore[no-any-return]

    @staticmethod
    def from_dict(data: object) -> ModelSpec:
        """Check and rebuild what `to_dict` wrote.

        Raises:
            SpecError: anything is missing, of the wrong type or out of range.
        """
        entry = _mapping(data, "model")
        try:
            shown = _mapping(entry["preprocessing"], "preprocessing")
            return ModelSpec(
                num_classes=_integer(entry["num_classes"]),
                preprocessing=_preprocessing(shown),
                arch=_text_or_none(entry.get("arch")),
                options={str(k): str(v) for k, v in _mapping(entry.get("options", {}), "options").items()},
                transforms=tuple(dict(_mapping(t, "transform")) for t in _items(entry.get("transforms", []))),
                lineage=tuple(_step(_mapping(s, "lineage step")) for s in _items(entry.get("lineage", []))),
            )
        except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise SpecError(f"its description is incomplete or broken ({error})") from None


class ParentFields(TypedDict, total=False):
    """The two fields by which a `Step` names the file it started from; none for a start from nothing."""

    parent_name: str
    parent_sha256: str


def parent_fields(path: Path, sha256: str) -> ParentFields:
    """For ``Step(..., **parent_fields(path, sha256))``."""
    return {"parent_name": path.name, "parent_sha256": sha256}


def _preprocessing(entry: Mapping[str, Any]) -> Preprocessing:
    channels, height, width = (_integer(v) for v in _items(entry["input_size"]))
    return Preprocessing(
        input_size=(channels, height, width),
        mean=tuple(float(v) for v in _items(entry["mean"])),
        std=tuple(float(v) for v in _items(entry["std"])),
        dataset=_text_or_none(entry.get("dataset")),
        class_names=tuple(str(v) for v in _items(entry.get("class_names", []))),
        resize=None if entry.get("resize") is None else _integer(entry["resize"]),
        interpolation=entry.get("interpolation", "bilinear"),
        in_graph=bool(entry.get("in_graph", False)),
    )


def _step(entry: Mapping[str, Any]) -> Step:
    chosen_on = entry.get("chosen_on")
    if chosen_on not in (None, *get_args(ChoiceSplit)):
        raise SpecError(f"unknown split {chosen_on!r}")
    return Step(
        command=str(entry["command"]),
        options=dict(_mapping(entry.get("options", {}), "options")),
        parent_name=_text_or_none(entry.get("parent_name")),
        parent_sha256=_text_or_none(entry.get("parent_sha256")),
        metrics=dict(_mapping(entry.get("metrics", {}), "metrics")),
        notes=tuple(str(note) for note in _items(entry.get("notes", []))),
        chosen_on=chosen_on,
        created=str(entry.get("created", "")),
        machine=dict(_mapping(entry.get("machine", {}), "machine")),
        versions={str(k): str(v) for k, v in _mapping(entry.get("versions", {}), "versions").items()},
        invocation=tuple(str(word) for word in _items(entry.get("invocation", []))),
    )


def _plain(value: object) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{name} is not a mapping")
    return value


def _items(value: object) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise SpecError("expected a list")
    return value


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(f"expected a whole number, found {value!r}")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)
