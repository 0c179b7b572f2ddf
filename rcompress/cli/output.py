"""What the user sees: results alone on stdout, prose and progress on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def launched() -> tuple[int, int, int]:
    """(rank, number of processes, rank on this machine) as ``torchrun`` says; (0, 1, 0) without it."""
    rank, count, local = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return (int(rank), int(count), int(local)) if rank and count and local else (0, 1, 0)


def say_error(message: str) -> None:
    """One line on stderr; of several processes, those after the first say who they are."""
    rank = launched()[0]
    speaker = f"rcompress (process {rank})" if rank else "rcompress"
    print(f"{speaker}: error: {' '.join(message.split())}", file=sys.stderr)


class Output:
    """The terminal as a command sees it; also the `Progress` that library functions report to.

    Used as a context manager, so that a bar is gone before anything else is written.
    """

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet or launched()[0] > 0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def start(self, description: str, total: int) -> None:
        """Show a bar for ``total`` units in place of the previous one."""
        self._stop()
        if self.quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        self._task = self._bar.add_task(description, total=total, figures="")

    def advance(self, units: int = 1, **figures: float) -> None:
        """Move the bar on; ``figures`` stand beside it."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=units)
            if figures:
                shown = "  ".join(f"{name} {value:,.4g}" for name, value in figures.items())
                self._bar.update(self._task, figures=shown)

    def note(self, message: str) -> None:
        """One line of prose on stderr (not with --quiet)."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False)
        else:
            print(message, file=sys.stderr, flush=True)

    def path(self, path: Path, **details: Any) -> None:
        """The result of a command that writes a file: its path, or with --json an object around it."""
        self.paths([path], **details)

    def paths(self, paths: Sequence[Path], **details: Any) -> None:
        """The same of several: a line each, or one object, whose ``output`` is the first."""
        self._stop()
        names = [str(path) for path in paths]
        told = {"output": names[0], **({"outputs": names} if names[1:] else {}), **details}
        self._print(json.dumps(told) if self.as_json else "\n".join(names))

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], data: Any, left: int = 1
    ) -> None:
        """The result of a command whose table is the result; ``data`` is what --json prints instead.

        The first ``left`` columns are text, the others figures, aligned to the right.
        """
        self._stop()
        if self.as_json:
            self._print(json.dumps(data))
            return
        print_table(title, columns, rows, left)

    def json(self, data: Any) -> None:
        """One object on stdout."""
        self._stop()
        self._print(json.dumps(data))

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None

    @staticmethod
    def _print(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> None:
    """A table on stdout that is never cut: piped, it takes the width it needs."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console() if sys.stdout.isatty() else Console(width=240)
    if title:
        console.print(title, markup=False, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table, markup=False, highlight=False)
