from __future__ import annotations

import errno
import os
import sqlite3

import pytest

from bacalhau_p2p.errors import ContentError, NoRoom
from bacalhau_p2p.ipfs.store.disk_errors import disk_errors


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (OSError(errno.EIO, "Input/output error"), ContentError, "Input/output error"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), NoRoom, "No space left on device"),
        (OSError(errno.EDQUOT, "quota"), NoRoom, "quota"),
        (sqlite_error(sqlite3.SQLITE_FULL), NoRoom, "database or disk is full"),
        (sqlite_error(sqlite3.SQLITE_IOERR), ContentError, "database or disk is full"),
        (sqlite3.DatabaseError("file is not a database"), ContentError, "file is not a database"),
    ],
)
def test_a_refusal_of_the_disk_is_a_content_error(error, kind, reason):
    with (
        pytest.raises(ContentError, match=f"cannot store blocks: {reason}") as caught,
        disk_errors("store blocks"),
    ):
        raise error
    assert type(caught.value) is kind


def test_other_errors_pass():
    with pytest.raises(ValueError, match="other"), disk_errors("store blocks"):
        raise ValueError("other")
