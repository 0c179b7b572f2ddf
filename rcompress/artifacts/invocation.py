"""The command that is running, in the words of whoever typed it: every step that it writes remembers them."""

from __future__ import annotations

from contextvars import ContextVar

INVOCATION: ContextVar[tuple[str, ...]] = ContextVar("INVOCATION", default=())
"""``("prune", "r20.pth", "--ratio", "0.6")``; empty where no command is running, as in somebody's own script."""
