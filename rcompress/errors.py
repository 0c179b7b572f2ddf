"""The one exception that means «the user can mend this»."""

from __future__ import annotations

from pathlib import Path


class RcompressError(Exception):
    """A known failure: what it concerns, what is wrong, and what to do about it.

    The command line prints it as one line and exits with 1; anything else that escapes is a bug.
    """

    def __init__(self, subject: str | Path, fault: str, remedy: str) -> None:
        self.subject = str(subject)
        self.fault = fault
        self.remedy = remedy
        super().__init__(f"{self.subject}: {fault}; {remedy}")

    def __reduce__(self) -> tuple[type[RcompressError], tuple[str, str, str]]:
        """Worker processes hand it on."""
        return (RcompressError, (self.subject, self.fault, self.remedy))


class HelperDone(Exception):  # noqa: N818 - nothing failed
    """A process that helped to train is done; the first one goes on alone and writes what came out."""
