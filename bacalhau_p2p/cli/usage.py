"""Wrong usage: what is wrong on one line, and where to read how it is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from bacalhau_p2p.cli.printing import print_line


class WrongUsage(click.UsageError):
    """An error of click in our words."""

    def show(self, file: IO[Any] | None = None) -> None:
        print_line(f"Error: {self.message}", err=True)
        if self.ctx is not None:
            print_line(f"See '{self.ctx.command_path} --help'.", err=True)


@contextmanager
def in_our_words() -> Iterator[None]:
    """Turns click's errors of usage in this block into WrongUsage."""
    try:
        yield
    except (WrongUsage, click.exceptions.NoArgsIsHelpError):
        raise
    except click.UsageError as error:
        raise WrongUsage(what_is_wrong(error), error.ctx) from None


def what_is_wrong(error: click.UsageError) -> str:
    """Without a full stop, and with the names that the help shows."""
    problem = error.message.strip()
    problem = problem if problem.endswith("...") else problem.removesuffix(".")
    problem = problem[:1].lower() + problem[1:]
    if isinstance(error, click.NoSuchOption):
        return f"no such option {error.option_name}{_meant(error)}"
    if isinstance(error, click.MissingParameter):
        return f"missing {_name(error.param)}"
    if not isinstance(error, click.BadParameter) or isinstance(error.param, click.Argument):
        return problem
    name = error.param_hint or (_name(error.param) if error.param is not None else "")
    return f"{name}: {problem}" if name else problem


def _meant(error: click.NoSuchOption) -> str:
    """The option that is shown and has nearly this name."""
    import difflib

    options = error.ctx.command.get_params(error.ctx) if error.ctx is not None else []
    shown = [each for each in options if isinstance(each, click.Option) and not each.hidden]
    names = [name for each in shown for name in (*each.opts, *each.secondary_opts) if name.startswith("--")]
    close = difflib.get_close_matches(error.option_name, names, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _name(parameter: click.Parameter | None) -> str:
    """An option by its long name, an argument by what stands for it in the usage."""
    if isinstance(parameter, click.Option):
        return next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0])
    if parameter is None:
        return "argument"
    return (parameter.metavar or parameter.name or "argument").strip("[].").upper()


class Number(click.IntRange):
    """A whole number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is not a whole number{self._range()}", param, ctx)

    def _range(self) -> str:
        if self.min is not None and self.max is not None:
            return f" from {self.min} to {self.max}"
        return f", {self.min} or more" if self.min is not None else ""


PORT = Number(0, 65535)
"""A port to listen on, or 0 for any."""
