"""Patterns of the local paths that jobs may use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from bacalhau_p2p.errors import SettingsError

_WILDCARD = re.compile(r"[*?\[{]")


@dataclass(frozen=True, slots=True)
class AllowedPath:
    """A pattern of paths that jobs may mount, for writing too when `read_write`.

    `*` and `?` match characters of one name, `[a-z]` one character of a set, `{a,b}` either text, and
    `**` any number of folders. A pattern without any of them allows exactly that path.
    """

    pattern: str
    read_write: bool = False

    @classmethod
    def parse(cls, text: str) -> AllowedPath:
        """From Bacalhau's notation: a pattern, then `:rw` or `:ro` (the default). Raises SettingsError."""
        pattern, colon, mode = text.rpartition(":")
        if not colon or mode not in ("rw", "ro"):
            pattern, mode = text, "ro"
        if not pattern.startswith("/") or ".." in PurePosixPath(pattern).parts:
            raise SettingsError(f"allowed local path {text!r} must be absolute and have no '..'")
        try:
            _regex(pattern)
        except re.error:
            raise SettingsError(f"allowed local path {text!r} is not a valid pattern") from None
        return cls(pattern, mode == "rw")

    def matches(self, path: str) -> bool:
        """Whether the text of an absolute path matches; the disk is not read."""
        return _regex(self.pattern).fullmatch(path) is not None

    def on_disk(self) -> AllowedPath:
        """The same pattern with symlinks resolved in the part before the first wildcard, because an
        operator may name a path through a symlink. Blocks."""
        names = PurePosixPath(self.pattern).parts
        fixed = next((index for index, name in enumerate(names) if _WILDCARD.search(name)), len(names))
        base = str(Path(*names[:fixed]).resolve())
        pattern = str(PurePosixPath(_escape(base), *names[fixed:]))
        return AllowedPath(pattern, self.read_write)


def _escape(path: str) -> str:
    """A pattern that matches just this path."""
    return re.sub(r"([*?\[{\\])", r"[\1]", path)


@lru_cache(256)
def _regex(pattern: str) -> re.Pattern[str]:
    """The regular expression of a glob pattern over whole absolute paths."""
    out = ""
    for name in PurePosixPath(pattern).parts[1:]:
        out += "(?:/[^/]+)*" if name == "**" else "/" + _name_regex(name)
    return re.compile(out or "/", re.DOTALL)


def _name_regex(name: str) -> str:
    """The regular expression of one name of a pattern."""
    if "{" in name:
        return _wildcards_regex(name)
    # The path comes from a stranger, so nothing is tried twice: between two `*` the first place that fits is
    # as good as any later one.
    first, *middle = [_wildcards_regex(part) for part in _split_at_stars(name)]
    if not middle:
        return first
    *middle, last = middle
    return first + "".join(f"(?>[^/]*?{part})" for part in middle if part) + "[^/]*" + last


def _split_at_stars(name: str) -> list[str]:
    """The parts of a name between its `*`, except those inside of `[...]`."""
    parts, index = [""], 0
    while index < len(name):
        end = name.find("]", index + 2) if name[index] == "[" else -1
        if name[index] == "*":
            parts.append("")
            index += 1
        else:
            stop = end + 1 if end > 0 else index + 1
            parts[-1] += name[index:stop]
            index = stop
    return parts


def _wildcards_regex(name: str) -> str:
    out, index, depth = "", 0, 0
    while index < len(name):
        char = name[index]
        index += 1
        end = name.find("]", index + 1) if char == "[" else -1
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif end > 0:
            inner = name[index:end].replace("\\", "\\\\").replace("[", "\\[")
            out += f"[{'^' + inner[1:] if inner[0] in '!^' and len(inner) > 1 else inner}]"
            index = end + 1
        elif char == "{":
            out, depth = out + "(?:", depth + 1
        elif char == "}" and depth:
            out, depth = out + ")", depth - 1
        elif char == "," and depth:
            out += "|"
        else:
            out += re.escape(char)
    return out
