"""What a power cut leaves of the files on a disk.

What was synced is there. Of the rest any part may be, also half a write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from random import Random

from tests.simulation.power.trace import Kind, Operation

SECTOR = 512
"""Bytes that a disk writes as a whole or not at all."""


class Loss(Enum):
    """What becomes of the operations after a file's last sync."""

    ALL = "all of it lost"
    NONE = "nothing lost"
    REST = "the last ones lost"
    SOME = "any of them lost"
    TORN = "any of them lost, and some writes torn"


@dataclass(slots=True)
class Disk:
    """The files of a machine: what was synced of each, and what was done to it since."""

    _safe: dict[str, bytearray | None] = field(default_factory=dict)
    _since: dict[str, list[Operation]] = field(default_factory=dict)

    def take(self, operation: Operation) -> None:
        path = operation.path
        if operation.kind is Kind.SYNC:
            self._safe[path] = _applied(self._safe.get(path), self._since.pop(path, ()))
        elif operation.kind is Kind.SYNC_FOLDER:
            self._sync_folder(path)
        else:
            self._since.setdefault(path, []).append(operation)

    def _sync_folder(self, folder: str) -> None:
        for path, since in self._since.items():
            places = [n for n, o in enumerate(since) if o.kind in (Kind.CREATE, Kind.DELETE)]
            if places and str(Path(path).parent) == folder:
                end = places[-1] + 1
                self._safe[path] = _applied(None, since[end - 1 : end])
                del since[:end]

    def after_cut(self, loss: Loss, rng: Random) -> Iterator[tuple[str, bytes]]:
        """The files as they may be found when the power is back, by path."""
        for path in sorted({*self._safe, *self._since}):
            safe, since = self._safe.get(path), self._since.get(path, [])
            left = _applied(None if safe is None else bytearray(safe), _survivors(since, loss, rng))
            if left is not None:
                yield path, bytes(left)


def _applied(content: bytearray | None, operations: Iterable[Operation]) -> bytearray | None:
    """A file after these operations; None stands for no file."""
    for operation in operations:
        match operation.kind:
            case Kind.DELETE:
                content = None
                continue
            case Kind.CREATE:
                content = bytearray()
                continue
        if content is None:  # of a file whose creation was lost
            content = bytearray()
        end = operation.offset + len(operation.data)
        if len(content) < end:
            content.extend(bytes(end - len(content)))
        if operation.kind is Kind.TRUNCATE:
            del content[operation.offset :]
        else:
            content[operation.offset : end] = operation.data
    return content


def _survivors(since: Sequence[Operation], loss: Loss, rng: Random) -> Sequence[Operation]:
    match loss:
        case Loss.ALL:
            return ()
        case Loss.NONE:
            return since
        case Loss.REST:
            return since[: rng.randint(0, len(since))]
    kept = [operation for operation in since if rng.random() < 0.6]
    return [part for operation in kept for part in _torn(operation, rng)] if loss is Loss.TORN else kept


def _torn(operation: Operation, rng: Random) -> Iterator[Operation]:
    """Some of the write's sectors."""
    if operation.kind is not Kind.WRITE or rng.random() < 0.5:
        yield operation
        return
    start, end = operation.offset, operation.offset + len(operation.data)
    for sector in range(start // SECTOR * SECTOR, end, SECTOR):
        first, last = max(sector, start), min(sector + SECTOR, end)
        if rng.random() < 0.5:
            yield Operation(operation.path, Kind.WRITE, first, operation.data[first - start : last - start])
