"""All errors of this package, in one hierarchy.

A message names the cause first, then the object and what to do about it. It starts in lower case and has no
final stop. Without a message, an error shows the first line of its class's docstring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class BacalhauError(Exception):
    """Something in bacalhau_p2p failed."""

    def __str__(self) -> str:
        return super().__str__() or _default_message(type(self))


def _default_message(error: type[BacalhauError]) -> str:
    line = (error.__doc__ or error.__name__).strip().partition("\n")[0].removesuffix(".")
    return line[:1].lower() + line[1:]


class SettingsError(BacalhauError):
    """A setting is missing, invalid, or contradicts another one."""


class DiskFull(BacalhauError):
    """The disk of this node is full."""


class EventDropped(BacalhauError):
    """This node could not carry out the request. Its log says why."""


class StoreFailed(BacalhauError):
    """The database of this node cannot be read or written.

    The node stops. When it is started again, it resumes from what was stored.
    """


# --- jobs -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a job: where (`Tasks[0].Engine.Params.Image`) and what (`missing`)."""

    path: str
    problem: str
    this_node_only: bool = False
    """Another node may accept the same job: a node's settings or data are the cause, not the job."""

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem


class InvalidJob(BacalhauError):
    """The job is not valid.

    The message lists every fault with its path, behind the name of the file if there is one.
    """

    def __init__(self, faults: Sequence[Fault], *, file: str = "") -> None:
        self.faults = tuple(faults)
        self.file = file
        listed = "; ".join(str(fault) for fault in self.faults)
        super().__init__(f"{file}: {listed}" if file else listed)


class UnknownJob(BacalhauError):
    """No job has this id."""


class AmbiguousID(BacalhauError):
    """Several jobs match this prefix; give more characters of the id."""


class JobNotFinished(BacalhauError):
    """The job has no result yet."""


class JobEnded(BacalhauError):
    """The job has ended already, so it cannot be stopped."""


class JobFailed(BacalhauError):
    """The job ended without a result."""

    def __init__(self, message: str, *, last_lines: str = "") -> None:
        """`last_lines`: the end of what its program wrote."""
        super().__init__(message)
        self.last_lines = last_lines


class InvalidFunction(BacalhauError):
    """This function cannot run as a job."""


class InvalidValue(BacalhauError):
    """This value cannot be an argument or a result of a function that runs as a job."""


class RemoteError(BacalhauError):
    """The function raised an exception where it ran as a job."""

    def __init__(self, message: str, *, type_name: str = "", traceback: str = "") -> None:
        """All of it is text of the node that ran the function: what it raised is never made here."""
        super().__init__(f"{type_name}: {message}" if type_name else message)
        self.type_name = type_name
        """Its class, such as `ValueError` or `decimal.InvalidOperation`; empty if there was no exception, but
        the interpreter ended without a value."""
        self.remote_message = message
        self.traceback = traceback


# --- running an execution ---------------------------------------------------------------


class ExecutionError(BacalhauError):
    """An execution could not be prepared, run or published.

    `permanent`: it would fail on any other node too, so the job is not retried.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class ExecutorError(ExecutionError):
    """The engine could not start the job."""


class LogsUnavailable(BacalhauError):
    """What an execution wrote cannot be read, or is not kept any more."""


class RunTimedOut(ExecutorError):
    """The job ran longer than its execution timeout.

    Permanent: it had all the time that it asked for.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class StorageError(ExecutionError):
    """An input could not be prepared."""


class PublisherError(ExecutionError):
    """A result could not be published."""


class VerifierError(BacalhauError):
    """The proposed results could not be compared."""


# --- content ----------------------------------------------------------------------------


class ContentError(BacalhauError):
    """Content could not be added, fetched or exported."""


class InvalidCID(ContentError):
    """This is not a CID."""


class ContentNotFound(ContentError):
    """No peer that can be reached has this CID."""


class PathNotFound(ContentNotFound):
    """The content of this CID has no such path."""


class ContentInUse(ContentError):
    """A running execution needs it."""


class InvalidContent(ContentError):
    """The blocks of this CID are malformed; nothing was written."""


class ContentTooLarge(ContentError):
    """The content exceeds a limit of this node."""

    size: int | None = None
    """Bytes that the content has at least, if these are too many."""


class NoRoom(ContentError):
    """The block store has no room for the content."""


# --- peers ------------------------------------------------------------------------------


class TransportError(BacalhauError):
    """A network operation failed."""


class UnknownNode(BacalhauError):
    """This node knows no other with this id."""


class PeerUnreachable(TransportError):
    """No connection to the peer could be opened."""


class MessageTooLarge(TransportError):
    """The message is larger than the transport allows."""


class ProtocolError(BacalhauError):
    """A message violates bprotocol."""


class RemoteProtocolError(ProtocolError):
    """A peer sent an invalid message.

    The node drops the message, counts it and carries on.
    """


# --- the HTTP API, as a client sees it ----------------------------------------------------


class ApiError(BacalhauError):
    """The node answered the request with an error."""

    def __init__(self, message: str, *, status: int = 0, retry_after: int = 0) -> None:
        """`retry_after`: seconds after which it is worth trying again, or 0."""
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class NodeUnavailable(ApiError):
    """No node answers at this address."""
