"""The data directory of a node: nobody but its owner may look into it."""

from __future__ import annotations

import stat
from pathlib import Path

from bacalhau_p2p.errors import SettingsError

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private(folder: Path) -> None:
    """Make the folder if it is missing, and take the permissions of everybody else from it.

    Jobs may have secrets in their environment, and the identity key is in here. Raises SettingsError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_mode & OTHERS:
            folder.chmod(0o700)
    except OSError as error:
        cause = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror
        reason = f"cannot make data directory {folder}: {cause}"
        raise SettingsError(f"{reason}; choose another with --data-dir or BACALHAU_P2P_DATA_DIR") from error
