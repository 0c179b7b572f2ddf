"""What is generated: README.md's command reference from ``--help``, its results and tables.csv from records.

``python -m tests.reference`` rewrites them; ``tests/test_readme.py`` checks that they are current.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from unittest import mock

from tests.distillation_tables import distillation
from tests.factorization_tables import factorization
from tests.headline_table import headline
from tests.pruning_tables import pruning
from tests.published_tables import TABLES, published, write_tables
from tests.result_tables import RECORDS, quantization

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
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


def commands() -> str:
    """All commands' help, folded, as Markdown."""
    from rcompress.cli.commands import COMMANDS

    return "\n\n".join(_folded(f"rcompress {name}", help_of(name)) for name in COMMANDS)


def _folded(title: str, text: str) -> str:
    return f"<details><summary><code>{title}</code></summary>\n\n```\n{text}\n```\n\n</details>"


def results() -> str:
    """The reference records' table, as Markdown."""
    from rcompress.report.build import build_report, read_sources
    from rcompress.report.markdown import markdown

    records, _, _ = read_sources(sorted(RECORDS.glob("*.result.json")))
    return markdown(build_report(records, "r20.pth")).split("\n", 2)[2]


PARTS = {
    "commands": commands,
    "headline": headline,
    "results": results,
    "published": published,
    "quantization": quantization,
    "pruning": pruning,
    "distillation": distillation,
    "factorization": factorization,
}


def marks(part: str) -> tuple[str, str]:
    """The comments between which a part stands."""
    return f"<!-- {part}: begin (make reference) -->", f"<!-- {part}: end -->"


def current(part: str) -> str:
    """A part as it stands in README.md."""
    begin, end = marks(part)
    text = README.read_text()
    return text[text.index(begin) + len(begin) : text.index(end)].strip()


def main() -> None:
    write_tables(TABLES)
    for part, generate in PARTS.items():
        begin, end = marks(part)
        text = README.read_text()
        before, after = text[: text.index(begin)], text[text.index(end) :]
        README.write_text(f"{before}{begin}\n\n{generate().strip()}\n\n{after}")


if __name__ == "__main__":
    main()
