"""No URL makes the node connect to a private address, unless its settings allow it (`outbound.addresses`)."""

from __future__ import annotations

import pytest

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.outbound.addresses import AddressGuard
from bacalhau_p2p.storage.url.provider import UrlStorage
from bacalhau_p2p.testing.storage import content_of
from tests.support.servers.file_site import DATA, url


async def test_a_host_with_a_private_address_is_refused(names, make_fetcher, place):
    names(["192.168.1.1"])
    with pytest.raises(StorageError, match=r"192\.168\.1\.1 \(of intranet\.test\) is not a public address"):
        await UrlStorage(AddressGuard(), make_fetcher()).prepare(url("http://intranet.test/"), place)


async def test_a_host_with_one_private_address_among_public_ones_is_refused(names, make_fetcher, place):
    names(["93.184.216.34", "127.0.0.1"])
    with pytest.raises(StorageError, match=r"127\.0\.0\.1 \(of mixed\.test\)"):
        await UrlStorage(AddressGuard(), make_fetcher()).prepare(url("http://mixed.test/"), place)


async def test_the_connection_uses_the_checked_address(names, site, storage, place):
    """A second question, which would be answered otherwise, is never asked."""
    resolver = names(["127.0.0.1"], ["10.9.9.9"])
    prepared = await storage.prepare(url(f"http://rebind.test:{site.server.port}/data.bin"), place)
    assert content_of(prepared.path) == DATA
    assert resolver.asked == 1
    assert site.server.requests[0].headers["host"] == f"rebind.test:{site.server.port}"


async def test_a_private_address_in_a_url_is_refused(site, make_fetcher, place):
    storage = UrlStorage(AddressGuard(), make_fetcher())
    assert [fault.path for fault in storage.faults(site.url())] == ["Params.URL"]
    with pytest.raises(StorageError, match="has an address that is not allowed on this node"):
        await storage.prepare(site.url(), place)
    assert site.asked == []


@pytest.mark.parametrize(
    "address", ["localhost", "2130706433", "0x7f000001", "127.1", "0177.0.0.1", "[::ffff:127.0.0.1]"]
)
async def test_every_notation_of_loopback_is_refused(site, make_fetcher, place, address):
    with pytest.raises(StorageError):
        await UrlStorage(AddressGuard(), make_fetcher(pauses=())).prepare(
            url(f"http://{address}:{site.server.port}/data.bin"), place
        )
    assert site.asked == []


async def test_a_private_address_is_not_connected_to_for_a_size(site, make_fetcher):
    assert await UrlStorage(AddressGuard(), make_fetcher()).size(site.url()) is None
    assert site.asked == []
