"""Commands whose words are kept in the history of what they write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

from rcompress.artifacts.invocation import INVOCATION
from rcompress.cli.given import is_given

NO_MATTER = frozenset({"data_dir", "device", "json_", "quiet", "resume", "tensorboard", "threads"})
"""What changes where the work is done, or what is said of it, and nothing in the file that is written."""
FOLDERS = re.compile(r"[^:]*[/\\]")
"""Those in a text that may name a file: ``runs/s18.pth``, ``imagefolder:/home/me/pets:512``."""


class RecordedCommand(TyperCommand):
    """A command that tells `INVOCATION` what was typed while it runs."""

    def invoke(self, ctx: Any) -> Any:
        token = INVOCATION.set((self.name or "", *words(ctx)))
        try:
            return super().invoke(ctx)
        finally:
            INVOCATION.reset(token)


def words(ctx: typer.Context) -> Iterator[str]:
    """Arguments and options as given, in the order of the help, options by their long names, files by theirs."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if not is_given(ctx, name) or name in NO_MATTER:
            continue
        value = ctx.params[name]
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(parameter, TyperOption):
                flags = parameter.secondary_opts if each is False else parameter.opts
                yield max(flags, key=len)
            if not isinstance(each, bool):
                yield Path(each).name if parameter.type.name == "path" else FOLDERS.sub("", str(each))
