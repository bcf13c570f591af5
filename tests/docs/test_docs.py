from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bacalhau_p2p.cli.help_pages import GLOBAL, section_of
from bacalhau_p2p.cli.root import cli

ROOT = Path(__file__).parents[2]
CLI_REFERENCE = (ROOT / "docs" / "cli.md").read_text()


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield " ".join((*path, name)), command


def first_names() -> list[tuple[str, click.Command]]:
    """Each command with the first of its names."""
    found: dict[click.Command, str] = {}
    for name, command in commands(cli):
        found.setdefault(command, name)
    return [(name, command) for command, name in found.items()]


@pytest.mark.parametrize(("name", "command"), first_names())
def test_every_command_and_flag_is_documented(name: str, command: click.Command):
    section = re.search(rf"^## {name}$(.*?)(?=^## |\Z)", CLI_REFERENCE, re.MULTILINE | re.DOTALL)
    assert section is not None
    introduction = CLI_REFERENCE.partition("\n## ")[0]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    for option in options:
        place = introduction if section_of(option) == GLOBAL else section[1]
        for flag in (*option.opts, *option.secondary_opts):
            assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", place), flag


def test_the_reference_is_what_the_commands_say():
    program = [sys.executable, str(ROOT / "scripts" / "cli-reference"), "--check"]
    result = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_every_job_in_the_docs_is_a_job_but_for_its_cids():
    from bacalhau_p2p.model.parsing import parse_job

    jobs = [
        block
        for page in (ROOT / "docs").glob("*.md")
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
        if "Tasks:" in block
    ]
    assert jobs
    for job in jobs:
        assert parse_job(job.replace("bafy...", "bafkqaaa")).tasks


def test_every_key_of_a_job_is_documented():
    from bacalhau_p2p.model import job

    page = (ROOT / "docs" / "jobs.md").read_text()
    models = [each for each in vars(job).values() if isinstance(each, type) and hasattr(each, "model_fields")]
    keys = {field.alias or name for model in models for name, field in model.model_fields.items()}
    assert {"Tasks", "InputSources", "MinBids"} <= keys
    assert [key for key in sorted(keys) if not re.search(rf"\b{key}\b", page)] == []


def test_every_setting_is_documented():
    from bacalhau_p2p.settings import Settings

    page = (ROOT / "docs" / "settings.md").read_text()
    assert [name for name in Settings.model_fields if not re.search(rf"`{name}[`.]", page)] == []


def test_every_endpoint_is_documented():
    words = re.findall(r"`([^`\n]+)`", (ROOT / "docs" / "api.md").read_text())
    ends = {
        re.sub(r"\b[A-Z]+\b(\.tar\.gz|\[/path\])?", "{}", path.partition("?")[0]).removeprefix("...")
        for path in " ".join(words).split()
        if re.match(r"(\.\.\.)?/\w", path)
    }
    paths = json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"]
    routes = [re.sub(r"\{\w+\}", "{}", path) for path in paths]
    assert len(routes) > 20
    assert [route for route in routes if not any(route.endswith(end) for end in ends)] == []


def test_every_page_of_the_docs_is_named_in_the_readme_and_every_link_leads_somewhere():
    readme = (ROOT / "README.md").read_text()
    pages = sorted((ROOT / "docs").glob("*.md"))
    assert [page.name for page in pages if f"docs/{page.name}" not in readme] == []
    for page in [ROOT / "README.md", *pages]:
        for link, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
            target = page.parent / link if link else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor:
                assert anchor in anchors(target), f"{page.name}: {link}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
