"""The help of every command: short enough for a terminal of 80 columns, and with examples that work."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from bacalhau_p2p.cli.help_pages import names_of, section, text_of
from bacalhau_p2p.cli.lazy_group import LazyGroup
from bacalhau_p2p.cli.root import cli

WIDTH = 80
MAX_SENTENCES = 6
MAX_LINES = 2
"""Lines for what one option does."""


def all_commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from all_commands(command, *path, name)


COMMANDS = dict([("", cli), *all_commands(cli)])


def help_of(name: str) -> list[str]:
    context = click.Context(COMMANDS[name], info_name=name or "bacalhau-p2p", terminal_width=WIDTH)
    return COMMANDS[name].get_help(context).splitlines()


def options_of(command: click.Command) -> list[click.Option]:
    return [each for each in command.params if isinstance(each, click.Option) and not each.hidden]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_terminal(name):
    lines = help_of(name)
    assert [line for line in lines if len(line) > WIDTH] == []
    assert not any(line.endswith("...") and not line.strip().startswith(("Usage", "$")) for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_a_few_sentences(name):
    text = COMMANDS[name].help or ""
    assert len(re.findall(r"\.(?:\s|$)", text)) <= MAX_SENTENCES
    assert "`" not in text
    first = text.partition("\n\n")[0]
    assert first.endswith(".")
    assert first.count(".") == 1
    assert len(first) < WIDTH - 20


@pytest.mark.parametrize("name", [name for name, each in COMMANDS.items() if options_of(each)])
def test_each_option_takes_at_most_two_lines(name):
    lines = help_of(name)
    starts = [number for number, line in enumerate(lines) if re.match(r"  -", line)]
    assert len(starts) >= len(options_of(COMMANDS[name]))
    for start in starts:
        end = next((n for n in range(start + 1, len(lines)) if not lines[n].startswith("   ")), len(lines))
        has_its_own_line = "  " not in lines[start].strip()
        assert end - start - has_its_own_line <= MAX_LINES, lines[start:end]


@pytest.mark.parametrize("name", [name for name, each in COMMANDS.items() if isinstance(each, click.Group)])
def test_each_command_takes_one_line_in_the_list(name):
    group = COMMANDS[name]
    assert isinstance(group, click.Group)
    lines = help_of(name)
    listed = group.sections.items() if isinstance(group, LazyGroup) else [("Commands", group.commands)]
    names = [each for title, commands in listed if title != "Aliases" for each in commands]
    for each in names:
        (line,) = [line for line in lines if line.startswith(f"  {each} ")]
        assert line.endswith(".")


@pytest.mark.parametrize(
    ("name", "example"),
    [(name, line) for name, each in COMMANDS.items() for line in getattr(each, "examples", ())],
)
def test_examples_are_right(name, example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").touch()
    words = shlex.split(example)
    context: click.Context = click.Context(cli)
    command: click.Command = cli
    while isinstance(command, click.Group):
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
    assert command is COMMANDS[name]
    command.make_context(name, words, parent=context)


def test_options_are_in_sections_and_aliases_are_not_shown():
    options = [
        click.option("-c", "--count", "--concurrency", metavar="N", show_default="1", help="Nodes."),
        click.option("--wait/--no-wait", show_default="yes", help="Wait."),
    ]

    @click.command()
    @section("Nodes", options)
    def run() -> None:
        pass

    count, wait = run.params
    assert (names_of(count), text_of(count)) == ("-c, --count N", "Nodes. [default: 1]")
    assert (names_of(wait), text_of(wait)) == ("--[no-]wait", "Wait. [default: yes]")
    lines = help_of("docker run")
    assert "Resources:" in lines
    assert lines.index("Resources:") < next(n for n, line in enumerate(lines) if line.startswith("  --cpu "))
    assert not any("--concurrency" in line for line in lines)
