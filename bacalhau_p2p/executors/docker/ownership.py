"""Owners and modes of the files that a container reads and writes: bind mounts keep those of the host."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bacalhau_p2p.errors import ExecutorError, SettingsError
from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.executors.results import write_failed

NOBODY = 65534


@dataclass(frozen=True, slots=True)
class JobUser:
    """The user and group, by number, that a job runs as. `of_image`: its image chose them."""

    uid: int
    gid: int
    of_image: bool = False

    @classmethod
    def of_this_process(cls) -> Self:
        """Those of this process, so that it owns what jobs write; those of `nobody` if it is root."""
        return cls(os.geteuid(), os.getegid()) if os.geteuid() != 0 else cls(NOBODY, NOBODY)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `nobody`, `UID` or `UID:GID`. Raises SettingsError."""
        if text == "nobody":
            return cls(NOBODY, NOBODY)
        match = re.fullmatch(r"([0-9]+)(?::([0-9]+))?", text)
        if match is None:
            raise SettingsError(f"job_user: {text!r} is not image, nobody, UID or UID:GID")
        return cls(int(match[1]), int(match[2] or match[1]))

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"


def check_readable(source: MountedInput, user: JobUser) -> None:
    """Raises ExecutorError when the job's user cannot read an input."""
    try:
        status = source.path.stat()
    except OSError as error:
        raise ExecutorError(f"input {source.target}: {error.strerror}") from error
    needed = stat.S_IRUSR | (stat.S_IXUSR if stat.S_ISDIR(status.st_mode) else 0)
    if status.st_uid != user.uid:
        needed >>= 3 if status.st_gid == user.gid else 6
    if status.st_mode & needed != needed:
        mode = stat.S_IMODE(status.st_mode)
        raise ExecutorError(
            f"input {source.target}: not readable for user {user} of the job (mode {mode:04o})"
        )


def give_to_job(folders: Iterable[Path], user: JobUser) -> None:
    """Make these folders the job's, to write into. Raises ExecutorError."""
    try:
        for folder in folders:
            if os.geteuid() == 0:
                os.chown(folder, user.uid, user.gid)
            folder.chmod(0o755)
    except OSError as error:
        raise write_failed(error) from error
