"""What can go wrong with one peer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from bacalhau_p2p.errors import PeerUnreachable, RemoteProtocolError


class PeerFault(Exception):
    """A peer failed; another peer may still succeed. With `invalid` it sent invalid data."""

    def __init__(self, message: str, *, invalid: bool = False) -> None:
        super().__init__(message)
        self.invalid = invalid


@contextmanager
def stream_faults(idle_timeout: float) -> Iterator[None]:
    """A block around a stream to one peer, in which the errors of the stream become PeerFault."""
    try:
        yield
    except (PeerUnreachable, RemoteProtocolError) as error:
        raise PeerFault(str(error)) from error
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise PeerFault("connection lost") from error
    except trio.TooSlowError as error:
        raise PeerFault(f"no data for {idle_timeout:g} s") from error
