from __future__ import annotations

import pytest

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.outbound.addresses import AddressGuard


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"],
)
def test_public_addresses_are_permitted(address):
    assert AddressGuard().permits(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
        "2002:c0a8:101::1",
        "::127.0.0.1",
        "not an address",
        "",
    ],
)
def test_other_addresses_are_refused_in_every_notation(address):
    assert not AddressGuard().permits(address)


def test_only_allowed_networks_are_permitted():
    guard = AddressGuard(["10.1.0.0/16", "::1/128"])
    assert guard.permits("10.1.2.3")
    assert guard.permits("::ffff:10.1.2.3")
    assert guard.permits("::1")
    assert not guard.permits("10.2.0.1")


@pytest.mark.parametrize("text", ["10.1.0.0/33", "intranet", "10.1.2.3/16"])
def test_an_invalid_network_is_a_settings_error(text):
    with pytest.raises(SettingsError, match="allow_private_networks"):
        AddressGuard([text])


@pytest.mark.parametrize("host", ["xn--a", "a..b", "x" * 300, "caf\u00e9", "\ud800"])
async def test_a_name_that_cannot_be_looked_up_is_an_unknown_host(host):
    with pytest.raises(OSError):
        await AddressGuard().resolve(host, 80)
