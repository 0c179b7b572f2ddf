"""``import``: a foreign state dict becomes a checkpoint that describes itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from rcompress.artifacts.checkpoint import load_tensors, unwrap_state_dict, write_checkpoint
from rcompress.artifacts.files import sha256_of
from rcompress.artifacts.spec import FORMAT, ModelSpec, Preprocessing, SpecError, Step, parent_fields
from rcompress.errors import RcompressError
from rcompress.models.fitting import require_logits
from rcompress.models.foreign import (
    ForeignError,
    guess_architectures,
    module_from_foreign,
    num_classes_of,
    option_words,
    renamed,
)


@dataclass(frozen=True)
class ImportOptions:
    """What the weights do not say: architecture, its builder's options, and the preprocessing they expect."""

    arch: str
    preprocessing: Preprocessing
    builder: dict[str, str] = field(default_factory=dict)


def import_checkpoint(source: Path, target: Path, options: ImportOptions) -> ModelSpec:
    """Read ``source``, check it against the architecture by one strict load and one image, write ``target``.

    Raises:
        RcompressError: it holds no weights, or they do not fit; the remedy names the architectures that do. Or the
            network does not take the images described.
    """
    content = load_tensors(source)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        raise RcompressError(source, "is an rcompress checkpoint already", "use it as it is")
    state = unwrap_state_dict(content)
    if state is None:
        raise RcompressError(
            source, "holds no state_dict", "save one with torch.save(model.state_dict(), FILE)"
        )
    try:
        module = module_from_foreign(options.arch, options.builder, state)
        classes = num_classes_of(renamed(state))
        step = Step(
            "import", {"arch": options.arch, **options.builder}, **parent_fields(source, sha256_of(source))
        )
        spec = ModelSpec(classes, options.preprocessing, options.arch, dict(options.builder)).with_step(step)
    except ForeignError as error:
        raise RcompressError(source, f"is no {options.arch}: {error}", fitting_remedy(state)) from None
    except SpecError as error:
        raise RcompressError(
            source, str(error), "name the dataset it was trained on with --dataset"
        ) from None
    require_logits(module, spec, source)
    write_checkpoint(target, spec, module.state_dict())
    return spec


def fitting_remedy(state: Mapping[str, Tensor]) -> str:
    """Which of our architectures the weights fit."""
    fitting = [option_words(arch, options) for arch, options in guess_architectures(state)]
    return (
        f"they fit {' or '.join(fitting)}"
        if fitting
        else "they fit no built-in one: --arch package.module:callable"
    )
