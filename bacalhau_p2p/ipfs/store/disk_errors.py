"""Refusals of the disk, as errors about content."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from bacalhau_p2p.errors import ContentError, NoRoom

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_errors(action: str) -> Iterator[None]:
    """Raises ContentError when the disk, or SQLite, refuses the action; NoRoom when the disk is full."""
    try:
        yield
    except OSError as error:
        kind = NoRoom if error.errno in _DISK_FULL else ContentError
        raise kind(f"cannot {action}: {error.strerror or error}") from None
    except sqlite3.Error as error:
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        raise (NoRoom if full else ContentError)(f"cannot {action}: {error}") from None
