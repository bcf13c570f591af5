"""Files, folders and symlinks that are created below one folder and nowhere else.

Everything is reached through descriptors, under names that were validated, in files that must not exist
yet. A file or folder is open while the next block may belong to it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_EXISTING_FILE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_CLOSED = -1


class TreePath(NamedTuple):
    """A path below the output folder, which has no `parent` itself."""

    parent: TreePath | None
    name: str

    def names(self) -> tuple[str, ...]:
        names = []
        path = self
        while path.parent is not None:
            names.append(path.name)
            path = path.parent
        return tuple(reversed(names))


class Extent(NamedTuple):
    """Where in which file the content of a block is."""

    file: TreePath
    offset: int
    size: int


@dataclass(slots=True, eq=False)
class Output:
    """A file or folder that is being written; it is closed when no block is `pending` for it."""

    path: TreePath
    descriptor: int
    is_file: bool = False
    pending: int = 0


class OutputTree:
    """The tree below one open folder. Every method may raise OSError."""

    def __init__(self, folder: int) -> None:
        """`folder` is the descriptor of an empty folder, which the caller closes."""
        self._folder = folder
        self._open: set[Output] = set()
        self.root = Output(TreePath(None, ""), folder)

    def create_file(self, parent: Output, name: str, *, executable: bool = False) -> Output:
        descriptor = os.open(name, _NEW_FILE, _mode(executable), dir_fd=self._descriptor(parent))
        return self._opened(Output(TreePath(parent.path, name), descriptor, is_file=True))

    def write_file(self, parent: Output, name: str, data: bytes, *, executable: bool = False) -> Extent:
        """Create a file of one block, and close it."""
        descriptor = os.open(name, _NEW_FILE, _mode(executable), dir_fd=self._descriptor(parent))
        try:
            _write(descriptor, data, 0)
        finally:
            os.close(descriptor)
        return Extent(TreePath(parent.path, name), 0, len(data))

    def create_folder(self, parent: Output, name: str) -> Output:
        above = self._descriptor(parent)
        os.mkdir(name, 0o755, dir_fd=above)
        return self._opened(Output(TreePath(parent.path, name), os.open(name, _FOLDER, dir_fd=above)))

    def create_symlink(self, parent: Output, name: str, target: str) -> None:
        os.symlink(target, name, dir_fd=self._descriptor(parent))

    def write(self, file: Output, data: bytes, offset: int) -> Extent:
        _write(self._descriptor(file), data, offset)
        return Extent(file.path, offset, len(data))

    def read(self, extent: Extent) -> bytes:
        """What was written there, unless somebody else has changed it."""
        file = self._reopen(extent.file, _READ_FILE)
        try:
            return os.pread(file, extent.size, extent.offset)
        finally:
            os.close(file)

    def close_if_done(self, output: Output) -> None:
        """Close a file or folder for which no block is pending; a later write opens it again."""
        if not output.pending and output in self._open:
            self._open.discard(output)
            os.close(output.descriptor)
            output.descriptor = _CLOSED

    def close(self) -> None:
        """Close everything that is open; no other call may follow."""
        for output in self._open:
            os.close(output.descriptor)
        self._open.clear()

    def _opened(self, output: Output) -> Output:
        self._open.add(output)
        return output

    def _descriptor(self, output: Output) -> int:
        if output.descriptor == _CLOSED:
            output.descriptor = self._reopen(output.path, _EXISTING_FILE if output.is_file else _FOLDER)
            self._open.add(output)
        return output.descriptor

    def _reopen(self, path: TreePath, flags: int) -> int:
        """A descriptor of something that was written, without following a symlink on the way."""
        *folders, last = path.names()
        descriptor = os.dup(self._folder)
        for name, wanted in (*((name, _FOLDER) for name in folders), (last, flags)):
            above = descriptor
            try:
                descriptor = os.open(name, wanted, dir_fd=above)
            finally:
                os.close(above)
        return descriptor


def _mode(executable: bool) -> int:
    return 0o755 if executable else 0o644


def _write(descriptor: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
