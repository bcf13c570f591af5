"""What came of each input of a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from bacalhau_p2p.client.jobs import JobHandle
from bacalhau_p2p.errors import (
    ApiError,
    BacalhauError,
    DiskFull,
    EventDropped,
    SettingsError,
    StoreFailed,
    TransportError,
)

T = TypeVar("T")
V = TypeVar("V")

_OF_THE_NODE = (ApiError, DiskFull, EventDropped, SettingsError, StoreFailed, TransportError)


def is_of_the_job(error: BacalhauError) -> bool:
    """Whether the next job may do better. Else the node is the cause, and a map ends with this error."""
    return not isinstance(error, _OF_THE_NODE)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T, V]):
    """The job of one input has ended: with a result, or with an error."""

    input: T
    index: int
    """Of the input, from 0."""
    job: JobHandle | None
    """None if the job could not be submitted."""
    error: BacalhauError | None
    """Why there is no result: JobFailed, JobNotFinished, InvalidJob, ContentError and so on."""
    _result: V | None

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def result(self) -> V:
        """The result, or what `read` made of it. Raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return cast("V", self._result)
