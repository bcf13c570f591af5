"""What an execution wrote to stdout and stderr, in pieces."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # the command line reads logs, and has no time for pydantic
    from bacalhau_p2p.model.base import ExecutionID


class LogStream(IntEnum):
    """Numbered as in Bacalhau's API."""

    STDOUT = 1
    STDERR = 2


Offsets = tuple[int, int]
"""Bytes of stdout, and of stderr, that are known already."""


class LogPiece(NamedTuple):
    """Some bytes of one stream. Pieces of a stream come in order; one that begins beyond the end of the piece
    before says that what is between them was dropped."""

    execution_id: ExecutionID
    stream: LogStream
    offset: int
    """Where in the stream it begins."""
    data: bytes


def after(offsets: Offsets, piece: LogPiece) -> Offsets:
    """What is known with this piece."""
    end = piece.offset + len(piece.data)
    return (end, offsets[1]) if piece.stream is LogStream.STDOUT else (offsets[0], end)


class KnownOutput:
    """How much is known of each stream, for output that is read again from its beginning."""

    def __init__(self) -> None:
        self._ends: dict[tuple[ExecutionID, LogStream], int] = {}

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return bool(self._ends)

    def fresh(self, piece: LogPiece) -> LogPiece | None:
        """What of a piece is new; from then on it is known."""
        of = piece.execution_id, piece.stream
        end, seen = piece.offset + len(piece.data), self._ends.get(of, 0)
        if end <= seen:
            return None
        self._ends[of] = end
        skip = max(seen - piece.offset, 0)
        return piece._replace(offset=piece.offset + skip, data=piece.data[skip:])


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """What is wanted of the output of a job."""

    execution: str = ""
    """The beginning of an execution's id; empty for the latest one, or one with a result."""
    follow: bool = False
    """Go on until the job has ended, with its next execution when one fails."""
    tail: int | None = None
    """Only so many lines of each stream that are there already."""
    offsets: Offsets = (0, 0)
    """Of the execution that is named: what is known already."""
