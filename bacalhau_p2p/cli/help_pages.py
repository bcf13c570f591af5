"""The help of commands: what it does, an example, and its options in sections, each in few lines.

`scripts/cli-reference` writes `docs/cli.md` from the same texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

GLOBAL = "Global options"
"""The section of what every command has."""
_FIRST_COLUMN = 28
"""Columns of a terminal for the names of options; longer ones have a line of their own."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Command(click.Command):
    """A command with `examples`, which are lines of a shell without the name of the program."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = examples

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        if self.examples:
            program = ctx.find_root().info_name
            with formatter.section("Examples" if len(self.examples) > 1 else "Example"):
                for line in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}$ {program} {line}\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_options(self, ctx, formatter)


class Group(click.Group):
    """A group whose commands are listed in the order in which they were added."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(n, c.get_short_help_str(formatter.width)) for n, c in self.commands.items()])


def section(title: str, options: Sequence[Decorator]) -> Decorator:
    """Gives a command these options, in this order, in a section of its help."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        before = len(getattr(command, "__click_params__", ()))
        for option in reversed(options):
            command = option(command)
        for parameter in command.__click_params__[before:]:  # type: ignore[attr-defined]
            parameter.section = title
        return command

    return decorate


def section_of(option: click.Option) -> str:
    return str(getattr(option, "section", GLOBAL if {"--help", "--version"} & {*option.opts} else "Options"))


def names_of(option: click.Option) -> str:
    """The first short and the first long name, and what the value is: `-i, --input SRC[:DST]`."""
    short = [name for name in option.opts if not name.startswith("--")][:1]
    long = [name for name in option.opts if name.startswith("--")][:1]
    if option.secondary_opts:
        long = [f"--[no-]{name[2:]}" for name in long]
    value = value_of(option)
    return ", ".join(short + long) + (f" {value}" if value else "")


def value_of(option: click.Option) -> str:
    """What stands for the value of an option; empty for a flag."""
    if option.is_flag:
        return ""
    if option.metavar:
        return option.metavar
    return "|".join(map(str, option.type.choices)) if isinstance(option.type, click.Choice) else "TEXT"


def text_of(option: click.Option) -> str:
    """What an option does, and what holds without it."""
    default = option.show_default if isinstance(option.show_default, str) else None
    if option.show_default is True:
        default = str(option.default)
    return f"{option.help} [default: {default}]" if default else str(option.help or "")


def _write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    sections: dict[str, list[tuple[str, str]]] = {}
    for option in command.get_params(ctx):
        if isinstance(option, click.Option) and not option.hidden:
            sections.setdefault(section_of(option), []).append((names_of(option), text_of(option)))
    for title in sorted(sections, key=lambda title: title == GLOBAL):
        with formatter.section(title if len(sections) > 1 else "Options"):
            formatter.write_dl(sections[title], col_max=_FIRST_COLUMN)
