"""``rcompress predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rcompress.cli import options
from rcompress.cli.output import Output


def command(
    source: options.Source,
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    top: Annotated[int, typer.Option(min=1, help="Classes to show.")] = 5,
    backend: options.RunBackend = None,
    arch: options.ArchCode = None,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show the likely classes of image files.

    Example: rcompress predict r20-int8.xml cat.png dog.jpg
    """
    with Output(json_, quiet) as out:
        from rcompress.engines import RunOptions, load_engine
        from rcompress.engines.prediction import predict

        engine = load_engine(source, backend, RunOptions(device, threads, arch))
        found = predict(engine, images, top)
        rows = [
            (path if rank == 0 else "", guess.class_name, f"{guess.probability_percent:.2f}")
            for path, guesses in found.items()
            for rank, guess in enumerate(guesses)
        ]
        data = {str(path): [vars(guess) for guess in guesses] for path, guesses in found.items()}
        out.table("", ("image", "class", "probability %"), rows, data, left=2)
