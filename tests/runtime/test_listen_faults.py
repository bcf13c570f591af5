from __future__ import annotations

import errno
import os
import socket

import pytest

from bacalhau_p2p.runtime.listen_faults import why_not_listening


def reason(error: OSError) -> str:
    return why_not_listening(error, host_flag="--swarm-host", port_flag="--swarm-port")


def test_a_port_in_use_names_the_flag_for_another():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use") as caught:
        socket.create_server(taken.getsockname())
    assert reason(caught.value) == "already in use; choose another port with --swarm-port"


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EADDRNOTAVAIL, "this machine does not have this address; choose another with --swarm-host"),
        (errno.EACCES, "permission denied; choose a port above 1023 with --swarm-port"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_other_causes(number, told):
    assert reason(OSError(number, os.strerror(number))) == told


def test_an_error_without_a_number_is_its_text():
    assert reason(OSError("odd")) == "odd"
