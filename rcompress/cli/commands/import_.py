"""``rcompress import``."""

from __future__ import annotations

from typing import Annotated

import typer

from rcompress.cli import options
from rcompress.cli.naming import derived
from rcompress.cli.output import Output
from rcompress.cli.values import floats_per_channel


def command(
    source: options.Source,
    arch: Annotated[str, typer.Option("--arch", help="Architecture of the weights (see `rcompress train`).")],
    output: options.OutputPath = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="What the weights classify: cifar10, cifar100, tiny-imagenet, digits, imagefolder:PATH or "
            "parquet:PATH; or give --mean, --std and --image-size.",
        ),
    ] = None,
    shortcut: options.Shortcut = None,
    stem: options.Stem = None,
    mean: Annotated[
        str | None, typer.Option(help="Mean per channel the weights expect, pixels in 0..1 (the dataset's).")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation per channel, likewise.")] = None,
    image_size: Annotated[
        int | None, typer.Option(min=8, max=1024, help="Side of the inputs, without a dataset.")
    ] = None,
    data_dir: options.DataDir = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a checkpoint of another project's weights.

    From a .pth, .th or .pt that holds a state_dict, plain or wrapped.

    Example: rcompress import resnet32.th --arch resnet32 --shortcut pad --dataset cifar10
    --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 -o r32.pth
    """
    builder = {k: str(v) for k, v in (("shortcut", shortcut), ("stem", stem)) if v is not None}
    means, stds = floats_per_channel(mean, "--mean"), floats_per_channel(std, "--std")
    with Output(json_, quiet) as out:
        from rcompress.artifacts.files import require_checkpoint_output
        from rcompress.cli.session import preprocessing_from
        from rcompress.models.importing import ImportOptions, import_checkpoint

        target = require_checkpoint_output(output or derived(source, "imported", ".pth"), [source])
        preprocessing = preprocessing_from(source, dataset, data_dir, means, stds, image_size)
        spec = import_checkpoint(source, target, ImportOptions(arch, preprocessing, builder))
        out.note(
            f"{arch}, {spec.num_classes} classes, normalised by mean {preprocessing.mean} std {preprocessing.std}"
        )
        out.path(target)
