"""Inputs from the compute node's own disk, where its operator allows it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import trio

from bacalhau_p2p.errors import Fault, SettingsError, StorageError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.storage.interface import InputSize, PreparedInput

MAX_COUNTED = 100_000
"""Entries of a folder that are looked at to tell its size."""
_GLOB = re.compile(r"[*?\[{]")


@dataclass(frozen=True, slots=True)
class AllowedPath:
    """A pattern of paths that jobs may mount, for writing too when `read_write`.

    `*` and `?` stand for characters of one name, `[a-z]` for one of a set, `{a,b}` for either, `**`
    for any number of folders. A pattern without any of them allows exactly that path.
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
        """Whether the text of an absolute path matches; nothing is looked up on disk."""
        return _regex(self.pattern).fullmatch(path) is not None

    def on_disk(self) -> AllowedPath:
        """The same with symlinks resolved in the part before the first wildcard: what the operator
        meant by it is where it leads now."""
        names = PurePosixPath(self.pattern).parts
        fixed = next((index for index, name in enumerate(names) if _GLOB.search(name)), len(names))
        base = str(Path(*names[:fixed]).resolve())
        pattern = str(PurePosixPath(_escape(base), *names[fixed:]))
        return AllowedPath(pattern, self.read_write)


@dataclass(frozen=True, slots=True)
class _Source:
    path: str
    read_write: bool
    create_as: str


class LocalStorage:
    """`{Type: localDirectory, Params: {SourcePath: /data/a, ReadWrite: false, CreateAs: noCreate}}`.

    The path as the job writes it must match an allowed pattern, and so must the place that it
    really is, every symlink followed. A job that asks for `ReadWrite` needs a pattern with `:rw`;
    `CreateAs: dir` or `file` then makes what is not there. Nothing is copied or cleaned up.
    """

    def __init__(self, allowed: Iterable[str] = (), *, source: str = "localdirectory") -> None:
        """`source` is the type to answer to: Bacalhau has `local` and `localDirectory` for the same.

        Raises SettingsError for a malformed pattern.
        """
        self._allowed = tuple(AllowedPath.parse(text) for text in allowed)
        self._source = source
        self._measuring = trio.CapacityLimiter(2)

    @property
    def source(self) -> str:
        return self._source

    def faults(self, source: SpecConfig) -> list[Fault]:
        asked, found = _read(source.params)
        if asked is None:
            return found
        try:
            self._find(asked)
        except _Forbidden as error:
            return [Fault("Params.SourcePath", str(error))]
        return []

    async def has_locally(self, source: SpecConfig) -> bool:
        asked, _ = _read(source.params)
        if asked is None:
            return False
        try:
            path = await trio.to_thread.run_sync(self._find, asked)
        except _Forbidden:
            return False
        return path.exists() or asked.create_as != "nocreate"

    async def size(self, source: SpecConfig, *, hints: Sequence[PeerID] = ()) -> InputSize | None:
        """None for a folder of more than `MAX_COUNTED` entries, and for what is not there."""
        asked, _ = _read(source.params)
        if asked is None:
            return None
        # Given up when cancelled: a dead network drive may hold the thread for minutes.
        total = await trio.to_thread.run_sync(
            self._measure, asked, abandon_on_cancel=True, limiter=self._measuring
        )
        return None if total is None else InputSize(total=total, local=total)

    def _measure(self, asked: _Source) -> int | None:
        try:
            path = self._find(asked)
            if not path.exists():
                return 0 if asked.create_as != "nocreate" else None
            return _bytes_below(path)
        except (_Forbidden, OSError):
            return None

    async def prepare(
        self, source: SpecConfig, folder: Path, *, hints: Sequence[PeerID] = ()
    ) -> PreparedInput:
        """As `StorageProvider.prepare`; the path given is the real one, without symlinks."""
        asked, found = _read(source.params)
        if asked is None:
            raise StorageError("; ".join(map(str, found)), permanent=True)
        path = await trio.to_thread.run_sync(self._make_ready, asked)
        return PreparedInput(path=path, read_only=not asked.read_write, owned=False)

    async def cleanup(self, prepared: PreparedInput) -> None:
        """Nothing to do: the data is the operator's."""

    def _make_ready(self, asked: _Source) -> Path:
        try:
            path = self._find(asked)
            if not path.exists():
                _create(path, asked)
        except _Forbidden as error:
            raise StorageError(str(error)) from None
        except OSError as error:
            raise StorageError(
                f"local path {asked.path} cannot be used: {error.strerror or error}"
            ) from error
        return path

    def _find(self, asked: _Source) -> Path:
        """The real place of an allowed path. Raises _Forbidden."""
        by_name = [allowed for allowed in self._allowed if allowed.matches(asked.path)]
        if not by_name:
            raise _Forbidden(f"{asked.path} is not among the local paths that this node allows")
        if not any(allowed.read_write or not asked.read_write for allowed in by_name):
            raise _Forbidden(f"{asked.path} may only be read on this node, not written")
        try:
            real = Path(asked.path).resolve()
        except (OSError, RuntimeError):  # a loop of symlinks
            raise _Forbidden(f"{asked.path} leads nowhere") from None
        for allowed in self._allowed:
            if allowed.on_disk().matches(str(real)) and (allowed.read_write or not asked.read_write):
                return real
        raise _Forbidden(f"{asked.path} is a symlink out of the local paths that this node allows")


def _bytes_below(path: Path) -> int | None:
    """Of the files in a folder, or of a file; symlinks are not followed. None when there are too many.

    Raises OSError. Notices a cancellation between folders.
    """
    if not path.is_dir():
        return path.stat().st_size
    total, counted, pending = 0, 0, [str(path)]
    while pending:
        trio.from_thread.check_cancelled()
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                counted += 1
                if counted > MAX_COUNTED:
                    return None
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


class _Forbidden(Exception):
    """Why this node does not hand out a path."""


def _read(params: Any) -> tuple[_Source | None, list[Fault]]:
    path, read_write = params.get("SourcePath"), params.get("ReadWrite", False)
    create_as = params.get("CreateAs") or "noCreate"
    found = []
    if not isinstance(path, str) or not path:
        found.append(Fault("Params.SourcePath", "missing"))
    elif not path.startswith("/") or "\0" in path or ".." in PurePosixPath(path).parts:
        found.append(Fault("Params.SourcePath", "must be absolute, without '..'"))
    if isinstance(read_write, str):
        read_write = {"true": True, "false": False}.get(read_write.lower())
    if not isinstance(read_write, bool):
        found.append(Fault("Params.ReadWrite", "must be true or false"))
    if not isinstance(create_as, str) or create_as.lower() not in ("dir", "file", "nocreate"):
        found.append(Fault("Params.CreateAs", "must be dir, file or noCreate"))
    elif create_as.lower() != "nocreate" and read_write is False:
        found.append(Fault("Params.CreateAs", "needs ReadWrite"))
    if found:
        return None, found
    return _Source(str(PurePosixPath(path)), bool(read_write), create_as.lower()), []


def _create(path: Path, asked: _Source) -> None:
    if asked.create_as == "nocreate":
        raise StorageError(f"local path {asked.path} does not exist on this node")
    if asked.create_as == "dir":
        path.mkdir(parents=True, exist_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _escape(path: str) -> str:
    """A pattern that matches just this path."""
    return re.sub(r"([*?\[{\\])", r"[\1]", path)


def _regex(pattern: str) -> re.Pattern[str]:
    """The regular expression of a glob pattern over whole absolute paths."""
    out = ""
    for name in PurePosixPath(pattern).parts[1:]:
        out += "(?:/[^/]+)*" if name == "**" else "/" + _name_regex(name)
    return re.compile(out or "/", re.DOTALL)


def _name_regex(name: str) -> str:
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
