from __future__ import annotations

import pytest

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.testing.storage import content_of
from tests.support.servers.file_site import DATA
from tests.support.servers.web_server import Answer


async def test_the_name_is_that_of_the_url_after_redirects(site, storage, place):
    site.pages["/name.txt"] = Answer(status=302, headers={"Location": "/elsewhere"})
    site.pages["/elsewhere"] = Answer(status=308, headers={"Location": site.server.url + "/data.bin"})
    prepared = await storage.prepare(site.url("/name.txt"), place)
    assert (prepared.name, content_of(prepared.path)) == ("data.bin", DATA)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("file:///etc/passwd", "redirect to file, not http or https"),
        ("gopher://x/", "redirect to gopher, not http or https"),
        ("/loop", "more than 10 redirects"),
        ("http://xn--a/", "redirect to an invalid URL"),
        ("//xn--ls8h.la/x", "redirect to an invalid URL"),
        ("http://h:99999/", "redirect to an invalid URL"),
        ("http://" + "a" * 300 + "/", "redirect to an invalid URL"),
        ("/" + "a" * 5000, "redirect to an invalid URL"),
    ],
)
async def test_a_forbidden_redirect_is_a_permanent_failure(site, storage, place, location, words):
    site.pages["/loop"] = Answer(status=301, headers={"Location": location})
    with pytest.raises(StorageError, match=words) as caught:
        await storage.prepare(site.url("/loop"), place)
    assert caught.value.permanent


@pytest.mark.parametrize("there", ["http://169.254.169.254/latest", "http://[::1]/", "http://10.0.0.1/"])
async def test_a_redirect_to_a_private_address_is_refused(site, storage, place, there):
    site.pages["/x"] = Answer(status=302, headers={"Location": there})
    with pytest.raises(StorageError, match="is not a public address") as caught:
        await storage.prepare(site.url("/x"), place)
    assert not caught.value.permanent
