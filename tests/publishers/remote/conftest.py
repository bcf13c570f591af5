from __future__ import annotations

import pytest

from tests.support.servers.pinning_services import FakeEstuary, FakeLighthouse, FakePinning


@pytest.fixture(params=[FakePinning, FakeLighthouse, FakeEstuary], ids=lambda fake: fake.kind)
def service(request):
    fake = request.param()
    with fake.server:
        yield fake


@pytest.fixture
def pinning():
    fake = FakePinning()
    with fake.server:
        yield fake
