"""A group of commands that imports the module of a command only when the command is used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from bacalhau_p2p.cli.help_pages import Group

Lazy = tuple[str, str]
"""The `module:attribute` of a command, and its short help."""


class LazyGroup(Group):
    """`lazy` has the commands in sections, by their names. Those of the section `ALIASES` are not listed."""

    def __init__(self, *args: Any, lazy: Mapping[str, Mapping[str, Lazy]], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.sections = lazy
        self.lazy = {name: command for commands in lazy.values() for name, command in commands.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return None
        name, _, attribute = self.lazy[cmd_name][0].partition(":")
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            from bacalhau_p2p.cli.installation import not_installed

            raise not_installed(cmd_name, error) from error
        command = getattr(module, attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(map(len, self.lazy))
        for title, commands in self.sections.items():
            if title != ALIASES:
                with formatter.section(title):
                    rows = [(name.ljust(longest), help_) for name, (_, help_) in commands.items()]
                    formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"no such command {args[0]!r}{self._suggestion(args[0])}", ctx) from error

    def _suggestion(self, name: str) -> str:
        import difflib

        close = difflib.get_close_matches(name, self.lazy, n=1)
        return f" (did you mean {close[0]!r}?)" if close else ""


ALIASES = "Aliases"
"""The section of further names of commands."""
