"""One task at a time, for streams that two tasks must not read or write together."""

from __future__ import annotations

from types import TracebackType

import trio


class ExclusiveUse:
    """A `with` block for one task at a time; a second one gets trio.BusyResourceError.

    `purpose` completes the sentence "another task uses this stream to ...".
    """

    __slots__ = ("_busy", "_purpose")

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose
        self._busy = False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(f"another task uses this stream to {self._purpose}")
        self._busy = True

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._busy = False
