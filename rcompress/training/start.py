"""Where a run starts: fresh weights, another checkpoint's, or torchvision's."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rcompress.artifacts.spec import ModelSpec, ParentFields, Preprocessing, SpecError, parent_fields
from rcompress.data import Dataset, check_matches, dataset_for, open_dataset
from rcompress.errors import RcompressError
from rcompress.models import build_model, load_model
from rcompress.models.fitting import require_logits
from rcompress.progress import SILENT, Progress
from rcompress.training.recipe import Recipe

TORCHVISION = "torchvision"


@dataclass(frozen=True)
class Start:
    """A network, its description, the data it is to learn, and where its weights are from.

    Attributes:
        parent: the parent fields of the step to come.
        pretrained: the weights are torchvision's.
    """

    module: nn.Module
    spec: ModelSpec
    dataset: Dataset
    parent: ParentFields = field(default_factory=ParentFields)
    pretrained: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """What tells its weights from another start's, for runs that go on."""
        return {**self.parent, **({"init": TORCHVISION} if self.pretrained else {})}


@dataclass(frozen=True)
class Origin:
    """Where a run is to start, in words that can be handed to another process.

    Attributes:
        init: a checkpoint's path, ``torchvision``, or None for fresh weights.
        arch: of fresh weights and torchvision's; the user's own, where a checkpoint was built by it.
        builder: the builder's options.
        dataset: its name; None for the checkpoint's.
        data_dir, image_size: see `open_dataset`.
    """

    init: str | None
    arch: str | None
    builder: dict[str, str]
    dataset: str | None
    data_dir: Path | None = None
    image_size: int | None = None

    @property
    def source(self) -> Path | None:
        """The checkpoint, where there is one."""
        return None if self.init in (None, TORCHVISION) else Path(str(self.init))

    def open(self, recipe: Recipe, seed: int, progress: Progress = SILENT) -> Start:
        """The network and its data; fresh ones are fed as ``recipe`` says.

        Raises:
            RcompressError: see `fresh`, `from_torchvision` and `from_checkpoint`.
        """
        if self.source is not None:
            return from_checkpoint(self.source, self.arch, self.dataset, self.data_dir, progress)
        assert self.arch is not None and self.dataset is not None
        opened = open_dataset(self.dataset, self.data_dir, self.image_size)
        if self.init == TORCHVISION:
            start = from_torchvision(self.arch, self.builder, opened, seed, progress)
        else:
            start = fresh(self.arch, self.builder, opened, seed)
        preprocessing = normalized_as(recipe, start.spec.preprocessing)
        return replace(start, spec=replace(start.spec, preprocessing=preprocessing))


def normalized_as(recipe: Recipe, preprocessing: Preprocessing) -> Preprocessing:
    """The dataset's preprocessing with the recipe's own normalisation, where it has one.

    Raises:
        RcompressError: it is none of images with so many channels.
    """
    mean, std = recipe.mean or preprocessing.mean, recipe.std or preprocessing.std
    try:
        return replace(preprocessing, mean=mean, std=std)
    except SpecError as error:
        raise RcompressError(
            "recipe", f"mean {mean}, std {std}: {error}", "give one for each channel"
        ) from None


def fresh(arch: str, options: dict[str, str], dataset: Dataset, seed: int) -> Start:
    """A network with random weights for ``dataset``.

    Raises:
        RcompressError: it does not take images of that size, or answers with anything but a logit for each class.
    """
    torch.manual_seed(seed)
    classes = len(dataset.class_names)
    spec = ModelSpec(classes, dataset.preprocessing(), arch, dict(options))
    module = build_model(arch, classes, **options)
    require_logits(module, spec, arch)
    return Start(module, spec, dataset)


def from_torchvision(
    arch: str, options: dict[str, str], dataset: Dataset, seed: int, progress: Progress = SILENT
) -> Start:
    """As `fresh`, with torchvision's pretrained weights wherever the shapes agree; the rest is said.

    Raises:
        RcompressError: torchvision has no weights for ``arch``, or they cannot be downloaded.
    """
    from torchvision import models

    start = fresh(arch, options, dataset, seed)
    try:
        with redirect_stdout(sys.stderr):  # a download says so
            weights = models.get_model(arch.removeprefix("torchvision:"), weights="DEFAULT").state_dict()
    except (ValueError, OSError, RuntimeError) as error:
        raise RcompressError(
            "--init torchvision",
            f"no pretrained {arch} to be had ({error})",
            "use --init FILE or leave it out",
        ) from None
    own = start.module.state_dict()
    taken = {
        name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape
    }
    start.module.load_state_dict(taken, strict=False)
    if left := sorted(own.keys() - taken.keys()):
        progress.note(f"fresh weights for {', '.join(left)}: torchvision's have another shape")
    return replace(start, pretrained=True)


def from_checkpoint(
    path: Path,
    own_arch: str | None = None,
    dataset_name: str | None = None,
    data_dir: Path | None = None,
    progress: Progress = SILENT,
) -> Start:
    """The network of a checkpoint, on the dataset that it names or on another; other classes get a new head.

    Raises:
        RcompressError: the file cannot be read, names no dataset, or takes images of another size; the classes of
            its dataset have changed.
    """
    loaded = load_model(path, own_arch)
    dataset = dataset_for(path, loaded.spec.preprocessing, dataset_name, data_dir)
    module, spec = loaded.module, loaded.spec
    classes = len(dataset.class_names)
    if dataset.name != spec.preprocessing.dataset:
        named = spec.preprocessing.class_names  # () where the file does not say
        if classes != spec.num_classes or (named and dataset.class_names != named):
            replace_head(module, classes)
            progress.note(f"new head for the {classes} classes of {dataset.name}")
        kept = replace(dataset.preprocessing(), mean=spec.preprocessing.mean, std=spec.preprocessing.std)
        spec = replace(spec, num_classes=classes, preprocessing=kept)
    known = spec.preprocessing
    check_matches(dataset, path, known.input_size, spec.num_classes, known.class_names)
    return Start(module, spec, dataset, parent_fields(path, loaded.sha256))


def replace_head(module: nn.Module, classes: int) -> None:
    """Put a fresh linear layer of ``classes`` outputs in place of the last one.

    Raises:
        RcompressError: the network has no linear layer.
    """
    linear = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise RcompressError(
            "--init", "this network has no linear head to replace", "use a dataset of its classes"
        )
    owner, _, attribute = linear[-1].rpartition(".")
    head = module.get_submodule(linear[-1])
    assert isinstance(head, nn.Linear)
    setattr(module.get_submodule(owner), attribute, nn.Linear(head.in_features, classes))
