"""Multicast on the loopback interface. `tests/e2e/test_lan.py` has IPv6, for which there is none there."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network

import pytest
import trio

from bacalhau_p2p.discovery.multicast import PORT, MulticastSocket
from bacalhau_p2p.discovery.networks import LocalNetwork

LOOPBACK = LocalNetwork(ip_address("127.0.0.1"), ip_network("127.0.0.0/8"), 1)


@pytest.mark.network
async def test_what_one_sends_all_receive_the_sender_too():
    one, other = MulticastSocket(LOOPBACK), MulticastSocket(LOOPBACK)
    try:
        with trio.fail_after(20):
            await one.send(b"who is there")
            for receiver in (one, other):
                while (packet := await receiver.receive())[0] != b"who is there":
                    pass
                assert packet[1] == "127.0.0.1"
    finally:
        one.close()
        other.close()


@pytest.mark.network
async def test_what_is_sent_to_this_machine_alone_is_not_received():
    receiver = MulticastSocket(LOOPBACK)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"to you alone", ("127.0.0.1", PORT))
        await receiver.send(b"to all")
        with trio.fail_after(20):
            while (packet := (await receiver.receive())[0]) != b"to all":
                assert packet != b"to you alone"
    finally:
        receiver.close()


def test_an_interface_that_is_not_there_is_an_error_and_leaves_no_socket():
    with pytest.raises(OSError, match=r"Cannot assign|No such device"):
        MulticastSocket(LocalNetwork(LOOPBACK.ip, LOOPBACK.network, 65000))
