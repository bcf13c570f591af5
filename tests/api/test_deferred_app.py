from __future__ import annotations

from bacalhau_p2p.api.deferred_app import DeferredApp


async def test_an_application_is_built_once_and_only_when_it_is_called():
    built, called = [], []

    async def app(scope, receive, send) -> None:
        called.append(scope)

    def build():
        built.append(True)
        return app

    deferred = DeferredApp(build)
    assert built == []
    for number in range(3):
        await deferred({"number": number}, None, None)
    assert built == [True]
    assert [scope["number"] for scope in called] == [0, 1, 2]
