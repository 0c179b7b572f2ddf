"""The Typer application and the boundary at which known failures become one line."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import rcompress
from rcompress.cli import commands
from rcompress.cli.output import say_error
from rcompress.errors import HelperDone, RcompressError, is_out_of_memory

EXIT_FAILURE, EXIT_INTERRUPTED = 1, 130

app = typer.Typer(
    name="rcompress",
    help="Make ResNets small and fast. Every command reads model files and writes model files.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
commands.register(app)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"rcompress {rcompress.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Make ResNets small and fast. Every command reads model files and writes model files."""


def main() -> None:
    """Entry point: exit 0 done, 1 known failure, 2 wrong usage, 130 interrupted."""
    try:
        app()
    except HelperDone:
        sys.exit(0)
    except RcompressError as error:
        say_error(str(error))
        sys.exit(EXIT_FAILURE)
    except SystemExit as stop:  # Typer has already turned Ctrl-C into this code
        if stop.code == EXIT_INTERRUPTED:
            say_error("interrupted")
        raise
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        say_error(f"out of memory: {str(error).splitlines()[0]}; lower --batch-size")
        sys.exit(EXIT_FAILURE)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_FAILURE)
    except OSError as error:
        if error.filename is None:
            raise
        say_error(f"{error.filename}: {error.strerror}; check the path and its permissions")
        sys.exit(EXIT_FAILURE)
