"""A name server for tests."""

from __future__ import annotations

import trio


class Names(trio.abc.HostnameResolver):
    """A name server: each answer is used once, and the last one repeated."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002
        self.asked += 1
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(2, 1, 6, "", (address, port)) for address in addresses]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError
