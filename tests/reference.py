"""The command reference in README.md, generated from ``--help``.

``python -m tests.reference`` rewrites it; ``tests/test_readme.py`` checks that it is current.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from unittest import mock

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- commands: begin (make reference) -->", "<!-- commands: end -->"
WIDTH = "100"


def help_of(*words: str) -> str:
    """What ``rcompress WORDS --help`` prints, at a fixed width."""
    from rcompress.cli.app import app

    text = io.StringIO()
    fixed = {"COLUMNS": WIDTH, "TERMINAL_WIDTH": WIDTH, "NO_COLOR": "1"}
    with (
        mock.patch.dict(os.environ, fixed),
        contextlib.redirect_stdout(text),
        contextlib.suppress(SystemExit),
    ):
        app([*words, "--help"], prog_name="rcompress")
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def reference() -> str:
    """All commands' help, as Markdown."""
    from rcompress.cli.commands import COMMANDS

    parts = [f"### rcompress {name}\n\n```\n{help_of(name)}\n```\n" for name in COMMANDS]
    return "\n".join([BEGIN, "", *parts, END])


def current() -> str:
    """The reference as it stands in README.md."""
    text = README.read_text()
    return text[text.index(BEGIN) : text.index(END) + len(END)]


def main() -> None:
    text = README.read_text()
    README.write_text(text.replace(current(), reference()))


if __name__ == "__main__":
    main()
