"""The file `neighbours.json` in the data directory. A node runs without it: faults are only logged."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from bacalhau_p2p.node.neighbours import Neighbour
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

MAX_BYTES = 1024 * 1024

_ENTRIES = TypeAdapter(list[Neighbour])


class NeighboursFile:
    """A list of neighbours on disk. The methods block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = path.with_name(f"{path.name}.new")

    def read(self) -> list[Neighbour]:
        """The entries; none if the file is missing, unreadable or damaged."""
        try:
            with self._path.open("rb") as file:
                entries = _ENTRIES.validate_json(file.read(MAX_BYTES))
        except FileNotFoundError:
            log.info("neighbours_file_missing", file=str(self._path))
        except OSError as error:
            log.warning("neighbours_file_unreadable", file=str(self._path), reason=_reason(error))
        except ValueError as error:
            reason = str(error).partition("\n")[0]
            log.warning("neighbours_file_damaged", file=str(self._path), reason=reason)
        else:
            log.info("neighbours_loaded", count=len(entries))
            return entries
        return []

    def write(self, entries: Sequence[Neighbour]) -> None:
        """Replace the file and wait for the disk. After a crash the file is the old one or the new one."""
        try:
            descriptor = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_ENTRIES.dump_json(list(entries), indent=1))
                file.flush()
                os.fsync(file.fileno())
            self._draft.replace(self._path)
        except OSError as error:
            log.warning("neighbours_not_written", file=str(self._path), reason=_reason(error))

    def delete(self) -> None:
        """Remove the file, if there is one."""
        for path in (self._path, self._draft):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("neighbours_not_deleted", file=str(path), reason=_reason(error))


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
