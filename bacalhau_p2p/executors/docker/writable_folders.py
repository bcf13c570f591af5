"""Lets the job's user write into the working directory and HOME, which belong to root in most images.

Before a container starts, its own layer is an ordinary folder of this machine. A folder that is made there,
with the owner that we choose, is merged by the engine with the one of the image. Only what is a real folder
in the image is used; no symlink of an image is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bacalhau_p2p.executors.docker.ownership import JobUser

if TYPE_CHECKING:
    from docker import APIClient

HOME = "/home/job"
"""HOME of a job whose user is not that of its image."""
FALLBACK_HOME = "/tmp"  # noqa: S108 - inside the container
"""HOME where this process cannot make a folder in the container."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS = 0o1777
_CHOSEN = 0o755
_MAX_LOWER = 512
"""Layers of an image; the engine allows fewer."""


def can_make_writable() -> bool:
    """Whether this process may change the layers of the engine, if that is on this machine."""
    return os.geteuid() == 0


def make_writable(client: APIClient, container: str, user: JobUser) -> None:
    """Give the working directory and HOME of a container that has not started to the job's user.

    Blocks. Does what it can: where the engine keeps its layers elsewhere, nothing.
    """
    details = client.inspect_container(container)
    data = (details.get("GraphDriver") or {}).get("Data") or {}
    upper, lower = data.get("UpperDir"), data.get("LowerDir")
    if not upper or not lower:
        return
    folders = {details["Config"].get("WorkingDir") or "/"}
    if not user.of_image:
        folders.add(HOME)
    for folder in sorted(folders):
        with suppress(OSError):
            give_folder(str(upper), str(lower).split(":")[:_MAX_LOWER], folder, user)


def give_folder(upper: str, lower: Sequence[str], path: str, user: JobUser) -> None:
    """Make `path` a folder of this user in the layer `upper` above the layers `lower`, the topmost first.

    Folders on the way stay as they are below, or are made as root's. Raises OSError; NotADirectoryError where
    the image has something else.
    """
    names = [name for name in PurePosixPath(path).parts if name not in ("/", ".", "..")]
    with ExitStack() as opened:
        below = []
        for each in lower:
            with suppress(OSError):
                below.append(_open(opened, each, None))
        at = _open(opened, upper, None)
        for name in names:
            found = _topmost(below, name)
            if found is not None and not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError(name)
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=at)
                os.chmod(name, _CHOSEN if found is None else found.st_mode & _PERMISSIONS, dir_fd=at)
                if found is not None:
                    os.chown(name, found.st_uid, found.st_gid, dir_fd=at, follow_symlinks=False)
            at = _open(opened, name, at)
            below = list(_opened_below(opened, below, name))
        status = os.fstat(at)
        if status.st_uid == 0:  # else the image gives it to somebody
            os.fchown(at, user.uid, user.gid)
            os.fchmod(at, (status.st_mode & _PERMISSIONS) | stat.S_IRWXU)


def environment_with_home(environment: Mapping[str, str], user: JobUser, *, writable: bool) -> dict[str, str]:
    """The environment of a job. The HOME of a user that its image does not know would be `/`."""
    if user.of_image or "HOME" in environment:
        return dict(environment)
    return {"HOME": HOME if writable else FALLBACK_HOME, **environment}


def _open(opened: ExitStack, name: str, parent: int | None) -> int:
    folder = os.open(name, _FOLDER, dir_fd=parent)
    opened.callback(os.close, folder)
    return folder


def _topmost(below: Sequence[int], name: str) -> os.stat_result | None:
    for folder in below:
        with suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            return None if stat.S_ISCHR(found.st_mode) else found  # a device stands for a removed entry
    return None


def _opened_below(opened: ExitStack, below: Sequence[int], name: str) -> Iterator[int]:
    for folder in below:
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                return  # hides what is further down
            yield _open(opened, name, folder)
