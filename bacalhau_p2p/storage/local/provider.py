"""Mounts files and folders of the compute node's own disk, where its operator allows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import trio

from bacalhau_p2p.errors import Fault, StorageError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.runtime.threads import Threads
from bacalhau_p2p.storage.interface import InputSize, PreparedInput, StorageProvider
from bacalhau_p2p.storage.local.allowed_paths import AllowedPath
from bacalhau_p2p.storage.trees import bytes_below

MAX_COUNTED = 100_000
"""Entries of a folder up to which its size is added up."""
MAX_PATH = 4096
"""Bytes of a path, as in Linux."""
MAX_DEPTH = 128
"""Names in a path. With `MAX_NAME` it bounds the work of matching a path with a pattern."""
MAX_NAME = 255
"""Bytes of a name, as in Linux."""


@dataclass(frozen=True, slots=True)
class _Source:
    path: str
    read_write: bool
    create_as: str


class LocalStorage(StorageProvider):
    """`{Type: localDirectory, Params: {SourcePath: /data/a, ReadWrite: false, CreateAs: noCreate}}`.

    The path in the job must match an allowed pattern, and so must the path it resolves to when every
    symlink is followed. A job with `ReadWrite` needs a pattern with `:rw`; `CreateAs: dir` or `file`
    then creates a path that does not exist. Nothing is copied or cleaned up.
    """

    def __init__(self, allowed: Iterable[str] = (), *, source: str = "localdirectory") -> None:
        """`source` is the type to answer to: Bacalhau has `local` and `localDirectory` for the same.

        Raises SettingsError for a malformed pattern.
        """
        self._allowed = tuple(AllowedPath.parse(text) for text in allowed)
        self._source = source
        # For calls that are abandoned when cancelled: a dead network drive may hold a thread for minutes.
        self._threads = Threads(2)

    @property
    def source(self) -> str:
        return self._source

    def faults(self, source: SpecConfig) -> list[Fault]:
        asked, found = _read(source.params)
        if asked is None:
            return found
        try:
            self._matching(asked)
        except _Forbidden as error:
            return [error.fault]
        return []

    async def input_faults(self, source: SpecConfig) -> list[Fault]:
        """A symlink that leads out of the allowed paths. Cancelled: returns at once."""
        asked, _ = _read(source.params)
        if asked is None:
            return []
        try:
            await self._threads.run_abandonable(self._resolve, asked)
        except _Forbidden as error:
            return [error.fault]
        return []

    async def has_locally(self, source: SpecConfig) -> bool:
        asked, _ = _read(source.params)
        if asked is None:
            return False
        return await self._threads.run_abandonable(self._exists, asked)

    def _exists(self, asked: _Source) -> bool:
        try:
            return self._resolve(asked).exists() or asked.create_as != "nocreate"
        except _Forbidden:
            return False

    async def size(self, source: SpecConfig, *, hints: Sequence[PeerID] = ()) -> InputSize | None:
        """None for a folder of more than `MAX_COUNTED` entries, and for a path that does not exist."""
        asked, _ = _read(source.params)
        if asked is None:
            return None
        total = await self._threads.run_abandonable(self._measure, asked)
        return None if total is None else InputSize(total=total, local=total)

    def _measure(self, asked: _Source) -> int | None:
        try:
            path = self._resolve(asked)
            if not path.exists():
                return 0 if asked.create_as != "nocreate" else None
            return bytes_below(path, MAX_COUNTED, trio.from_thread.check_cancelled)
        except (_Forbidden, OSError):
            return None

    async def prepare(
        self,
        source: SpecConfig,
        folder: Path,
        *,
        hints: Sequence[PeerID] = (),
        max_bytes: int | None = None,
    ) -> PreparedInput:
        """As `StorageProvider.prepare`; the prepared path is the real one, without symlinks."""
        asked, found = _read(source.params)
        if asked is None:
            raise StorageError("; ".join(map(str, found)), permanent=True)
        path = await trio.to_thread.run_sync(self._make_ready, asked)
        return PreparedInput(path=path, read_only=not asked.read_write, owned=False)

    async def cleanup(self, prepared: PreparedInput) -> None:
        """Does nothing: the data is the operator's."""

    def _make_ready(self, asked: _Source) -> Path:
        try:
            path = self._resolve(asked)
            if not path.exists():
                _create(path, asked)
        except _Forbidden as error:
            raise StorageError(str(error)) from None
        except OSError as error:
            raise StorageError(
                f"local path {asked.path} cannot be used: {error.strerror or error}"
            ) from error
        return path

    def _resolve(self, asked: _Source) -> Path:
        """The real path of an allowed one. Blocks. Raises _Forbidden."""
        self._matching(asked)
        try:
            real = Path(asked.path).resolve()
            looped = any(part.is_symlink() for part in (real, *real.parents))  # Python 3.13 leaves such a one
        except (OSError, RuntimeError):
            looped = True
        if looped:
            raise _Forbidden(f"{asked.path} is a loop of symlinks")
        for allowed in self._allowed:
            if allowed.on_disk().matches(str(real)) and (allowed.read_write or not asked.read_write):
                return real
        raise _Forbidden(f"{asked.path} is a symlink out of the local paths that this node allows")

    def _matching(self, asked: _Source) -> None:
        """Raises _Forbidden unless a pattern allows the path as it is written."""
        by_name = [allowed for allowed in self._allowed if allowed.matches(asked.path)]
        if not by_name:
            raise _Forbidden(f"{asked.path} is not among the local paths that this node allows")
        if asked.read_write and not any(allowed.read_write for allowed in by_name):
            raise _Forbidden(f"{asked.path} is read-only on this node")


class _Forbidden(Exception):
    """Why this node does not let jobs use a path."""

    @property
    def fault(self) -> Fault:
        return Fault("Params.SourcePath", str(self), this_node_only=True)


def _read(params: Any) -> tuple[_Source | None, list[Fault]]:
    path, read_write = params.get("SourcePath"), params.get("ReadWrite", False)
    create_as = params.get("CreateAs") or "noCreate"
    found = []
    if not isinstance(path, str) or not path:
        found.append(Fault("Params.SourcePath", "missing"))
    elif len(path) > MAX_PATH:
        found.append(Fault("Params.SourcePath", f"is longer than {MAX_PATH} characters"))
    elif not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        found.append(Fault("Params.SourcePath", f"must be an absolute path without '..', not {path[:64]!r}"))
    elif path.count("/") > MAX_DEPTH or any(len(name) > MAX_NAME for name in path.split("/")):
        found.append(Fault("Params.SourcePath", "is too deep, or has a name that is too long"))
    if isinstance(read_write, str) and len(read_write) <= len("false"):
        read_write = {"true": True, "false": False}.get(read_write.lower())
    if not isinstance(read_write, bool):
        found.append(Fault("Params.ReadWrite", "must be true or false"))
    if (
        not isinstance(create_as, str)
        or len(create_as) > 16
        or create_as.lower() not in ("dir", "file", "nocreate")
    ):
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
