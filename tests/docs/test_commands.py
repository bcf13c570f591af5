"""Every command of `bacalhau-p2p` that a page names exists, with its flags."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from bacalhau_p2p.cli.root import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_NAMED = re.compile(r"(?:`|\$ |\$\(|-- )bacalhau-p2p ((?:[^`\n]|\\\n)+)")
_FLAG = re.compile(r"--?[a-z][a-z-]*")


def unknown(line: str) -> str:
    """What of a command line does not exist; empty if all of it does. `ID` and the like stand for values."""
    command: click.Command = cli
    context = click.Context(command)
    rest = iter(line.split())
    for word in rest:
        if word == "--":
            return ""
        if flag := _FLAG.match(word):
            known = {o for p in command.get_params(context) for o in (*p.opts, *p.secondary_opts)}
            if flag[0] not in known:
                return flag[0]
            if isinstance(command, click.Group) and not word.endswith(("help", "version", "no-color")):
                next(rest, None)  # its value
        elif isinstance(command, click.Group):
            inner = command.get_command(context, re.split(r"\W$", word)[0])
            if inner is None:
                return word
            command, context = inner, click.Context(inner, parent=context)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_that_a_page_names_exists(page: Path):
    named = [found[1] for found in _NAMED.finditer(page.read_text())]
    assert {command: what for command in named if (what := unknown(command))} == {}


def test_what_does_not_exist_is_noticed():
    assert unknown("content list") == unknown("--api-port 1 get ID --output-dir x") == ""
    assert unknown("content pins") == "pins"
    assert unknown("get ID --into x") == "--into"
