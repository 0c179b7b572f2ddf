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
        raise typer.BadParameter(fault, param_hint=", ".join(_flag(context, name) for name in typed))


def _flag(context: typer.Context, name: str) -> str:
    """The option as it was typed: --no-... where that is what was."""
    (parameter,) = (each for each in context.command.params if each.name == name)
    refused = context.params[name] is False and parameter.secondary_opts
    return (parameter.secondary_opts if refused else parameter.opts)[0]
