from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from bacalhau_p2p.runtime.descriptors import MOST, RESERVE, raise_limit, shares


@pytest.mark.parametrize("limit", [64, 256, 1024, 4096, 20_000, MOST])
def test_connections_leave_the_reserve(limit):
    given = shares(limit)
    assert given.api + given.dials + given.swarm == limit - min(RESERVE, limit // 2)
    assert min(given.api, given.dials, given.swarm) > 0


def test_an_unlimited_process_has_shares_too():
    assert shares(resource.RLIM_INFINITY) == shares(MOST)
    assert shares() == shares(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def test_the_soft_limit_becomes_the_hard_limit():
    program = (
        "import resource as r\n"
        "from bacalhau_p2p.runtime.descriptors import raise_limit\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (100, 300))\n"
        "print(raise_limit(), raise_limit(), r.getrlimit(r.RLIMIT_NOFILE))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "300 300 (300, 300)\n"


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ((1024, resource.RLIM_INFINITY), MOST),
        ((1024, 2**30), MOST),
        ((1024, 4096), 4096),
        ((4096, 4096), None),
        ((MOST + 1, 2**30), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_no_more_is_asked_for_than_is_of_use(monkeypatch, limits, wanted):
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda kind, values: asked.append(values))
    assert raise_limit() == (limits[0] if wanted is None else wanted)
    assert asked == ([] if wanted is None else [(wanted, limits[1])])
