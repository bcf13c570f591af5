"""What is read from a container, and how the connection is closed. What runs a container tests the rest."""

from __future__ import annotations

import socket
from typing import Any, cast

from bacalhau_p2p.executors.docker.container_output import STDERR, STDOUT, AttachedOutput


class Response:
    """Of the engine, whose socket it reads from."""

    def __init__(self, ours: socket.socket) -> None:
        self.found_open: bool | None = None
        self._socket = ours

    def close(self) -> None:
        self.found_open = self._socket.fileno() >= 0


class Client:
    """Attaches to a container as the SDK does without TLS."""

    def __init__(self) -> None:
        ours, self.engine = socket.socketpair()
        self.response = Response(ours)
        self.file = cast(Any, socket.SocketIO(ours, "rb"))
        self.file._response = self.response

    def attach_socket(self, container: str, wanted: dict[str, int]) -> Any:
        return self.file


def test_the_response_is_closed_before_its_socket():
    """From Python 3.13 on, a response that finds its socket closed complains on stderr at its end."""
    client = Client()
    with client.engine:
        output = AttachedOutput(cast(Any, client), "c")
        output.close()
    assert client.response.found_open is True
    assert client.file.closed


def test_both_streams_are_read_until_the_engine_hangs_up():
    client = Client()
    output = AttachedOutput(cast(Any, client), "c")
    with client.engine:
        client.engine.sendall(b"\1\0\0\0\0\0\0\2hi\2\0\0\0\0\0\0\3oh!\1\0")
    assert list(output) == [(STDOUT, b"hi"), (STDERR, b"oh!")]
    output.close()
