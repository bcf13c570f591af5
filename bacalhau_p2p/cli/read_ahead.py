"""Makes the next item in a thread while one is used: a node makes a page while we show the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items, or error. The thread is one item ahead at most, and ends with the process."""
    made: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
    wanted = Semaphore(0)

    def make() -> None:
        try:
            for item in items:
                made.put((item,))
                wanted.acquire()
            made.put(None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are used
            made.put(error)

    Thread(target=make, daemon=True).start()
    while (found := made.get()) is not None:
        if isinstance(found, BaseException):
            raise found
        wanted.release()
        yield found[0]
