"""Every error that the library raises, in one tree.

The docstring of a class is the sentence a user reads when nothing more specific is known;
the message given to the constructor says what happened, cause first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class BacalhauError(Exception):
    """Something in bacalhau_p2p failed."""

    def __str__(self) -> str:
        return super().__str__() or (type(self).__doc__ or "").strip()


class SettingsError(BacalhauError):
    """A setting is missing, malformed or contradicts another one."""


class DiskFull(BacalhauError):
    """The disk of this node has no room for anything new."""


class StoreFailed(BacalhauError):
    """The disk refuses what this node must remember. It ends; started again, it resumes what was kept."""


# --- jobs -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a job: where (`Tasks[0].Engine.Params.Image`) and what (`missing`)."""

    path: str
    problem: str
    this_node_only: bool = False
    """Another node may accept the same job: a node's settings or data are the cause, not the job."""

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem


class InvalidJob(BacalhauError):
    """The job is not valid; every fault is named by its path."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))


class UnknownJob(BacalhauError):
    """No job has this id."""


class AmbiguousID(BacalhauError):
    """Several jobs have an id that begins so; give more characters."""


class JobNotFinished(BacalhauError):
    """The job has no result yet."""


class JobFailed(BacalhauError):
    """The job ended without a result."""


# --- running an execution ---------------------------------------------------------------


class ExecutionError(BacalhauError):
    """An execution could not be prepared, run or published.

    `permanent` says that another node would fail alike, so that trying again is useless.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class ExecutorError(ExecutionError):
    """The engine could not start the job."""


class RunTimedOut(ExecutorError):
    """The job ran longer than its execution time-out. Permanent: it was given the time that it asked for."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class StorageError(ExecutionError):
    """An input could not be prepared."""


class PublisherError(ExecutionError):
    """A result could not be published."""


class VerifierError(BacalhauError):
    """The verifier could not judge the proposals."""


# --- content ----------------------------------------------------------------------------


class ContentError(BacalhauError):
    """Content could not be added, fetched or written out."""


class InvalidCID(ContentError):
    """This is not a CID."""


class ContentNotFound(ContentError):
    """No reachable peer has this CID."""


class InvalidContent(ContentError):
    """The blocks behind this CID are not what they claim to be; nothing was written."""


class ContentTooLarge(ContentError):
    """The content exceeds a limit of this node."""


class NoRoom(ContentError):
    """This node has no room for the content."""


# --- peers ------------------------------------------------------------------------------


class TransportError(BacalhauError):
    """The network could not do what was asked of it."""


class PeerUnreachable(TransportError):
    """No connection to this peer can be had now."""


class MessageTooLarge(TransportError):
    """A message is larger than its carrier allows."""


class ProtocolError(BacalhauError):
    """The rules of bprotocol were broken."""


class RemoteProtocolError(ProtocolError):
    """A peer broke the rules. The message is dropped and counted; the node goes on."""


# --- the node's HTTP API, seen from a client ----------------------------------------------


class ApiError(BacalhauError):
    """The node answered a request with an error."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NodeUnavailable(ApiError):
    """No node listens at this address."""
