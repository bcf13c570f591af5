"""`docker run` and `wasm run`: which words of a line are ours, and which are those of the program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from bacalhau_p2p.cli.options import SubmitCommand
from bacalhau_p2p.cli.usage import what_is_wrong
from bacalhau_p2p.errors import InvalidJob

_FLAGS = {
    "image": "IMAGE",
    "module": "MODULE",
    "command": "CMD",
    "arguments": "ARG",
    "imports": "--import-modules",
    "inputs": "--input",
    "outputs": "--output",
    "domains": "--domain",
    "labels": "--label",
    "constraints": "--selector",
}
"""How the command line calls an argument, unless `--` and its name."""


class ProgramCommand(SubmitCommand):
    """A command whose line ends with that of a program.

    `--` ends our options. Without it our long options are found among the words of the program too, as
    Bacalhau's command line does it. Short ones, which most programs have as well, are refused there:
    `head -c 5` must not run `head` on five nodes.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours = args[: args.index("--")] if "--" in args else args
        image, program, short = _read(ours, self._options_with_value(ctx))
        advice = f"put -- before the command: {image} -- {program} ..." if program else ""
        if short:
            raise click.UsageError(
                f"{short} behind {program!r} may be an option of the job or of bacalhau-p2p; {advice}", ctx
            )
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if not advice:
                raise
            raise click.UsageError(
                f"{what_is_wrong(error)}; if it is meant for {program!r}, {advice}", ctx
            ) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Name the faults of a job by the options that they come from."""
        try:
            return super().invoke(ctx)
        except InvalidJob as error:
            from bacalhau_p2p.client.job_places import DOCKER_PLACES, PLACES, WASM_PLACES, renamed

            engine = DOCKER_PLACES if "image" in ctx.params else WASM_PLACES
            places = {
                place: _FLAGS.get(each, f"--{each.replace('_', '-')}")
                for place, each in {**PLACES, **engine, "Tasks[0].Name": "task_name"}.items()
            }
            raise InvalidJob([renamed(fault, places) for fault in error.faults]) from None

    def _options_with_value(self, ctx: click.Context) -> frozenset[str]:
        options = (parameter for parameter in self.get_params(ctx) if isinstance(parameter, click.Option))
        return frozenset(name for option in options if not option.is_flag for name in option.opts)


def _read(args: Sequence[str], with_value: frozenset[str]) -> tuple[str, str, str]:
    """The image or module, the first word of the program, and a short option behind that, as far as there are
    such words."""
    image = program = ""
    for word in _words(args, with_value):
        if not word.startswith("-") or word == "-":
            image, program = (image, program or word) if image else (word, "")
        elif program and not word.startswith("--"):
            return image, program, word
    return image, program, ""


def _words(args: Sequence[str], with_value: frozenset[str]) -> Iterator[str]:
    """The words without the values of options that stand by themselves."""
    rest = iter(args)
    for word in rest:
        yield word
        if word in with_value:
            next(rest, None)
