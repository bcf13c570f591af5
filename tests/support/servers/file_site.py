"""A web site with one file, and whatever a test adds."""

from __future__ import annotations

import hashlib

from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.outbound.addresses import AddressGuard
from tests.support.servers.web_server import Answer, WebServer

DATA = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
LOOPBACK = AddressGuard(["127.0.0.0/8"])


def url(text: str, **params: str) -> SpecConfig:
    return SpecConfig(type="url", params={"URL": text, **params})


class Site:
    """A site with one file and whatever a test adds."""

    def __init__(self) -> None:
        self.pages = {"/data.bin": Answer(headers={"ETag": '"one"'}, body=DATA)}
        self.server = WebServer(self.answer)

    def answer(self, request):
        page = self.pages.get(request.path, Answer(status=404))
        page = page(request) if callable(page) else page
        if "ETag" in page.headers and request.headers.get("if-none-match") == page.headers["ETag"]:
            return Answer(status=304)
        return page

    def url(self, path: str = "/data.bin", **params: str) -> SpecConfig:
        return url(self.server.url + path, **params)

    @property
    def asked(self) -> list[str]:
        return [request.path for request in self.server.requests]
