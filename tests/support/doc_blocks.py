"""The blocks of code in the documentation, and how they are run.

A block of `console` (commands after `$`, then what they print), `shell` or `python` is run by a test unless
the line before it says why not: `<!-- not run: a second machine -->`. One that needs an engine has
`<!-- run with Docker -->` there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.networks.networks import REPOSITORY

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n\n?)?^```(?P<language>console|shell|python)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_DIFFERENT = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"\b[0-9a-f]{8}\b"), "ID"),
    (re.compile(r"\bbaf[a-z0-9]+(?:\.\.\.)?"), "CID"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "TIME"),
    (re.compile(r"\b\d+\.\d+ s\b"), "SECONDS"),
    (re.compile(r"(?:/[\w.-]+)*/(wordcount|counted)\b"), r"FOLDER/\1"),
    (re.compile(r"\s+"), " "),
)
"""What differs between two runs of the same commands, and what stands for it in a comparison."""


@dataclass(frozen=True)
class Block:
    """A block of a page. `mark` is the comment before it."""

    page: str
    line: int
    language: str
    text: str
    mark: str = ""

    @property
    def is_run(self) -> bool:
        return not self.mark.startswith("not run: ")

    @property
    def needs_docker(self) -> bool:
        return self.mark == "run with Docker"

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """The commands of a console, each with the lines that the page says it prints."""
        command, printed = "", list[str]()
        for line in self.text.splitlines():
            if line.startswith("$ "):
                if command:
                    yield command, printed
                command, printed = line[2:], []
            elif command.endswith("\\"):
                command += "\n" + line
            elif line.strip():
                printed.append(line)
        yield command, printed

    def script(self) -> Iterator[tuple[str, list[str]]]:
        """The steps of this block in bash, each with what it prints (nothing where the page does not say)."""
        if self.language == "console":
            yield from self.commands()
        elif self.language == "shell":
            yield self.text, []
        else:
            yield f"python - <<'END_OF_BLOCK'\n{self.text}END_OF_BLOCK", []


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            page=str(page.relative_to(REPOSITORY)),
            line=text.count("\n", 0, found.start("language")) + 1,
            language=found["language"],
            text=found["text"],
            mark=found["mark"] or "",
        )
        for found in _BLOCK.finditer(text)
    ]


def comparable(line: str) -> str:
    """A printed line without what differs from run to run."""
    for pattern, name in _DIFFERENT:
        line = pattern.sub(name, line)
    return line.strip()
