"""Which options stand on the command line."""

from __future__ import annotations

import typer


def is_given(context: typer.Context, name: str) -> bool:
    """Whether the parameter of this name was typed, be it with its default's value."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def require_absent(context: typer.Context, names: tuple[str, ...], fault: str) -> None:
    """Refuse options that would do nothing.

    Raises:
        BadParameter: one of ``names`` was typed; it is named.
    """
    typed = [name for name in names if is_given(context, name)]
    if typed:
        flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
        raise typer.BadParameter(fault, param_hint=", ".join(flags[name] for name in typed))
