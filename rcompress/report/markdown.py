"""A report as GitHub Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rcompress.report.build import Report
from rcompress.report.published_table import published_table
from rcompress.report.tables import Table, table_of

SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$&])")


def markdown(report: Report, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """The tables with their footnotes, and ``pictures`` as (title, file name)."""
    table, published = table_of(report), published_table(report)
    lines = [
        f"# {_escaped(report.title)}",
        "",
        *_table(table),
        *(f"- {_escaped(note)}" for note in table.footnotes),
        *([] if published is None else _published(published)),
        *(f"\n![{_escaped(title)}]({name})" for title, name in pictures),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _table(table: Table) -> list[str]:
    rule = ["---" if column.text else "---:" for column in table.columns]
    return [
        _escaped(table.caption),
        "",
        _row([_escaped(column.header) for column in table.columns]),
        _row(rule),
        *(_row([_escaped(cell) for cell in cells]) for cells in table.cells),
        "",
    ]


def _published(table: Table) -> list[str]:
    """The table, and the command that makes or would make each row."""
    commands = {row["published_id"]: row["command"] for row in table.rows}
    listed = [f"- {_escaped(identity)}: {_code(command)}" for identity, command in commands.items()]
    return ["", "## Beside published figures", "", *_table(table), "Commands:", "", *listed]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Markdown's own characters made harmless."""
    return SPECIAL.sub(r"\\\1", text)


def _code(text: str) -> str:
    """A code span, fenced by more backticks than stand in it."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"
