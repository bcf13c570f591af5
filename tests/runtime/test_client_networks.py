from __future__ import annotations

import pytest

from bacalhau_p2p.runtime.client_networks import is_loopback, network_of


@pytest.mark.parametrize(
    ("host", "network", "loopback"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.9.9.9", "127.9.9.9", True),
        ("::1", "::/64", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("192.0.2.7", "192.0.2.7", False),
        ("::ffff:192.0.2.7", "192.0.2.7", False),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", False),
        ("fe80::1%eth0", "fe80::/64", False),
        ("testclient", "testclient", False),
        ("", "", False),
    ],
)
def test_clients_are_counted_by_network(host, network, loopback):
    assert network_of(host) == network
    assert is_loopback(host) is loopback
