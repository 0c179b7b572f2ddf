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


def is_out_of_memory(error: RuntimeError) -> bool:
    """PyTorch's error of a GPU, or of its allocator on a CPU (it is not imported for the question)."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
