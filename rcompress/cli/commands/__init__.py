"""Subcommands, one file each: read, call one library function, write, say."""

from __future__ import annotations

from importlib import import_module

import typer

from rcompress.cli.recording import RecordedCommand

COMMANDS = (
    "train",
    "distill",
    "tune",
    "import",
    "prune",
    "sensitivity",
    "sparsify",
    "quantize",
    "cluster",
    "binarize",
    "factorize",
    "export",
    "build-engine",
    "eval",
    "bench",
    "diagnose",
    "predict",
    "inspect",
    "doctor",
    "report",
)

MODULES = {"import": "import_", "build-engine": "build_engine"}  # where the name is no identifier


def register(app: typer.Typer) -> None:
    """Add every subcommand to ``app``; their modules import nothing heavy before they run."""
    for name in COMMANDS:
        module = import_module(f"rcompress.cli.commands.{MODULES.get(name, name)}")
        app.command(name, cls=RecordedCommand)(module.command)
