"""How library functions tell of their progress without knowing a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """A listener: the command line shows it as a bar, a notebook may ignore it."""

    def start(self, description: str, total: int) -> None:
        """A stretch of work of ``total`` units begins (and the previous one, if any, has ended)."""

    def advance(self, units: int = 1, **figures: float) -> None:
        """``units`` more are done; ``figures`` are shown beside the bar (loss, accuracy, images/s)."""

    def note(self, message: str) -> None:
        """One line that the user should read."""


class Silent:
    """The default listener: it hears nothing."""

    def start(self, description: str, total: int) -> None: ...

    def advance(self, units: int = 1, **figures: float) -> None: ...

    def note(self, message: str) -> None: ...


SILENT = Silent()


def tracked(items: Iterable[T], total: int, description: str, progress: Progress) -> Iterator[T]:
    """Yield ``items`` unchanged while ``progress`` counts them."""
    progress.start(description, total)
    for item in items:
        yield item
        progress.advance()
