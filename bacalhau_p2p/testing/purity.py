"""Shows that a call is pure: with files, sockets and processes forbidden, it must still succeed."""

from __future__ import annotations

import builtins
import io
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn
from unittest.mock import patch

_FORBIDDEN: tuple[tuple[Any, str], ...] = (
    (builtins, "open"),
    (io, "open"),
    *((os, name) for name in ("open", "stat", "lstat", "readlink", "listdir", "scandir", "access")),
    *((os, name) for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "link", "symlink", "statvfs")),
    *((socket, name) for name in ("socket", "getaddrinfo", "gethostbyname")),
    (subprocess, "Popen"),
)


@contextmanager
def no_io() -> Iterator[None]:
    """Within the block, opening or looking at a file, a socket or a process raises AssertionError.

    For the whole process: use it around synchronous calls only.
    """
    with ExitStack() as stack:
        for owner, name in _FORBIDDEN:
            stack.enter_context(patch.object(owner, name, _refusing(f"{owner.__name__}.{name}")))
        yield


def _refusing(call: str) -> Callable[..., NoReturn]:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError(f"must be pure, but called {call}{args!r:.200}")

    return refuse
