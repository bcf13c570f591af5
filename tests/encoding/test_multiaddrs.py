"""Addresses of strangers are read completely or not at all, and never raise anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from bacalhau_p2p.encoding.multiaddrs import (
    MAX_MULTIADDR,
    address_of_binary,
    binary_of_address,
    is_user_peer_address,
    parse_multiaddr,
    peer_of_address,
)
from bacalhau_p2p.errors import RemoteProtocolError

PEER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
ADDRESSES = [
    "/ip4/1.2.3.4/tcp/4001",
    "/ip6/2001:db8::1/tcp/65535",
    "/dns/example.org/tcp/443",
    "/dns4/a.example/tcp/1",
    "/dns6/a-b.example/tcp/1",
    "/memory/7",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_has_the_binary_form_of_other_implementations(address):
    binary = Multiaddr(address).to_bytes()
    assert binary_of_address(address) == binary_of_address(f"{address}/p2p/{PEER}") == binary
    assert address_of_binary(binary) == address
    assert address_of_binary(Multiaddr(f"{address}/p2p/{PEER}").to_bytes()) == address


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_peer_of_an_address_is_at_its_end(address):
    assert peer_of_address(f"{address}/p2p/{PEER}") == PEER
    assert peer_of_address(address) is None


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/",
        "text",
        f"/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/65536/p2p/{PEER}",
        f"/ip4/1.2.3/tcp/1/p2p/{PEER}",
        f"/ip4/1.2.3.4.5/tcp/1/p2p/{PEER}",
        f"/ip4/1.2.3.4/udp/1/quic-v1/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{PEER}",
        f"/ip6/:::/tcp/1/p2p/{PEER}",
        f"/dns4/a b/tcp/1/p2p/{PEER}",
        f"/dns4/{'a' * 64}/tcp/1/p2p/{PEER}",
        f"/dns4/{'a.' * 120}b/tcp/1/p2p/{PEER}",
        f"/dns4/\x1b[2J/tcp/1/p2p/{PEER}",
        "/ip4/1.2.3.4/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        f"/ip4/1.2.3.4/tcp/1/p2p/{PEER[:-1]}",
        f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}\n",
    ],
)
def test_what_cannot_be_dialled_has_no_peer(address):
    assert peer_of_address(address) is None


@pytest.mark.parametrize("data", [b"", b"\xbc", b"\x04\x01", b"\x04\x01\x02\x03\x04\x06\x01", b"\x80" * 11])
def test_malformed_bytes_are_no_address(data):
    assert address_of_binary(data) is None


def test_the_codecs_of_libp2p_fail_with_an_error_of_ours():
    with pytest.raises(RemoteProtocolError):
        parse_multiaddr(b"\xbc")


def test_an_address_has_a_limited_length():
    with pytest.raises(RemoteProtocolError, match="the limit is 256"):
        parse_multiaddr("/" + "x" * MAX_MULTIADDR)
    assert address_of_binary(bytes(MAX_MULTIADDR + 1)) is None


@given(st.binary(max_size=64))
def test_random_bytes_raise_nothing_but_protocol_errors(data):
    address = address_of_binary(data)
    if address is not None:
        assert binary_of_address(address) is not None
    try:
        parse_multiaddr(data)
    except RemoteProtocolError:
        return


@given(st.text(max_size=80))
def test_random_text_raises_nothing_but_protocol_errors(text):
    for address in (text, f"/dns4/{text}/tcp/1", f"/ip6/{text}/tcp/1", f"/ip4/1.2.3.4/tcp/{text}"):
        binary = binary_of_address(address)
        if binary is not None:
            assert address_of_binary(binary) is not None
        try:
            parse_multiaddr(address)
        except RemoteProtocolError:
            continue


def test_users_may_name_peers_with_other_keys_and_nothing_else():
    hashed = "QmYFVg4efG5g5z13BYMtsp2W14KMBqgBpoGZoRGGLXTezc"
    assert is_user_peer_address(f"/ip4/127.0.0.1/tcp/4001/p2p/{hashed}")
    assert peer_of_address(f"/ip4/127.0.0.1/tcp/4001/p2p/{hashed}") is None
    assert all(is_user_peer_address(f"{address}/p2p/{PEER}") for address in ADDRESSES)
    for wrong in (
        f"/p2p/{hashed}",
        f"/ip4/127.0.0.1/udp/1/quic-v1/p2p/{hashed}",
        f"/ip4/1.2.3.4/tcp/1/p2p/{hashed}0",
    ):
        assert not is_user_peer_address(wrong)
