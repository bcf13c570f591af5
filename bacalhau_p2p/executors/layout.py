"""Where a job finds its inputs and result paths when some of them lie inside others.

The deeper one wins, as with Docker's binds. A mount inside another one needs a mount point there: an empty
folder or file, which the job never sees, because what is mounted hides it. It is made here, in folders that
are the node's own, and without following a symlink: inputs are data of strangers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.runtime.removal import remove_tree

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A file or folder of this machine, and its path inside the job. `owned`: the node may make mount points
    in it."""

    path: Path
    target: PurePosixPath
    read_only: bool
    owned: bool
    is_output: bool = False
    outer: Mount | None = None
    """The mount that contains this one."""

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    @property
    def inside_outer(self) -> Sequence[str]:
        """The names that lead from the outer mount to this one."""
        return () if self.outer is None else self.target.relative_to(self.outer.target).parts


@dataclass(slots=True)
class Layout:
    """The mounts of one run, each after the one that contains it."""

    mounts: Sequence[Mount]
    _made: list[tuple[Path, Sequence[str], bool]] = field(default_factory=list)
    """Mount points in result paths: the folder of this machine, and the names below it, and whether
    it is a file that was filled. Inner ones first."""

    def make_mount_points(self) -> None:
        """Make what is missing. Blocks. Raises ExecutorError, OSError."""
        for mount in self.mounts:
            if mount.outer is not None:
                self.make_mount_point(mount)

    def make_mount_point(self, mount: Mount, *, filled: bool = False) -> Path:
        """The path of the mount point of a mount inside another one, which exists afterwards. Blocks.

        `filled`: the caller will put a copy of the input there, which must not become part of the results.
        Raises ExecutorError when a folder of this computer's user does not have it, OSError.
        """
        outer, names = mount.outer, mount.inside_outer
        assert outer is not None
        if outer.owned:
            made = _make(outer.path, names, folder=mount.is_folder)
            if outer.is_output:
                deepest = len(names)
                self._made += [
                    (outer.path, names[:depth], filled and depth == deepest)
                    for depth in range(deepest, made, -1)
                ]
        elif not _exists(outer.path, names, folder=mount.is_folder):
            raise ExecutorError(
                f"the folder of this node at {outer.target} has no {'/'.join(names)}, so nothing can be"
                " mounted there"
            )
        return outer.path.joinpath(*names)

    def remove_mount_points(self) -> None:
        """Remove those that would become part of the results, if they are still as they were made. Blocks."""
        for folder, names, filled in self._made:
            with suppress(OSError):
                _remove(folder, names, filled=filled)


def arrange(inputs: Iterable[MountedInput], outputs: Mapping[str, Path]) -> Layout:
    """How inputs and outputs (by path inside the job) lie inside one another. Makes nothing yet.

    Raises ExecutorError: permanent when two have the same path, or when one lies inside a file.
    """
    mounts: dict[PurePosixPath, Mount] = {}
    wanted = [
        *(
            Mount(path=each.path, target=_path(each.place), read_only=each.read_only, owned=each.owned)
            for each in inputs
        ),
        *(
            Mount(path=folder, target=_path(path), read_only=False, owned=True, is_output=True)
            for path, folder in outputs.items()
        ),
    ]
    for mount in sorted(wanted, key=lambda each: len(each.target.parts)):
        if not mount.path.exists():
            raise ExecutorError(f"input {mount.target} does not exist any more")
        if mount.target in mounts:
            raise ExecutorError(f"two inputs or result paths have the path {mount.target}", permanent=True)
        outer = next((mounts[parent] for parent in mount.target.parents if parent in mounts), None)
        if outer is not None and not outer.is_folder:
            raise ExecutorError(
                f"{outer.target} is a file, so nothing can be at {mount.target}", permanent=True
            )
        mounts[mount.target] = Mount(
            path=mount.path,
            target=mount.target,
            read_only=mount.read_only,
            owned=mount.owned,
            is_output=mount.is_output,
            outer=outer,
        )
    return Layout(list(mounts.values()))


def _path(target: str) -> PurePosixPath:
    return PurePosixPath("/", *(part for part in target.split("/") if part not in ("", ".")))


def _make(root: Path, names: Sequence[str], *, folder: bool) -> int:
    """Make a mount point below `root`; how many of the names existed already. What is in the way and has
    another type is removed: the deeper mount hides it."""
    existed = 0
    at = os.open(root, _FOLDER)
    try:
        for depth, name in enumerate(names):
            is_folder = folder or depth < len(names) - 1
            if _type_of(name, at) == (stat.S_IFDIR if is_folder else stat.S_IFREG):
                existed += existed == depth
            else:
                _replace(name, at, folder=is_folder)
            if depth < len(names) - 1:
                inner = os.open(name, _FOLDER, dir_fd=at)
                os.close(at)
                at = inner
    finally:
        os.close(at)
    return existed


def _replace(name: str, parent: int, *, folder: bool) -> None:
    with suppress(FileNotFoundError):
        remove_tree(name, dir_fd=parent)
    if folder:
        os.mkdir(name, dir_fd=parent)
        os.chmod(name, 0o755, dir_fd=parent)  # noqa: S103 - whatever the umask
    else:
        fd = os.open(name, _NEW_FILE, 0o644, dir_fd=parent)
        try:
            os.fchmod(fd, 0o644)
        finally:
            os.close(fd)


def _type_of(name: str, parent: int) -> int | None:
    try:
        return stat.S_IFMT(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None


def _exists(root: Path, names: Sequence[str], *, folder: bool) -> bool:
    """Whether there is a folder or a file to mount over, without a symlink on the way."""
    path = root
    for name in names:
        path = path / name
        if path.is_symlink():
            return False
    return path.is_dir() if folder else path.is_file()


def _remove(root: Path, names: Sequence[str], *, filled: bool) -> None:
    """Remove it if it is empty or was filled. Raises OSError.

    The job may have changed everything, so no symlink is followed.
    """
    at = os.open(root, _FOLDER)
    try:
        for name in names[:-1]:
            inner = os.open(name, _FOLDER, dir_fd=at)
            os.close(at)
            at = inner
        found = os.stat(names[-1], dir_fd=at, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(names[-1], dir_fd=at)
        elif stat.S_ISREG(found.st_mode) and (filled or not found.st_size):
            os.unlink(names[-1], dir_fd=at)
    finally:
        os.close(at)
