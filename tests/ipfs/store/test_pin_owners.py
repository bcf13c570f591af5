"""The names of owners are stored on disk and shown to users, so they must not change."""

from __future__ import annotations

import pytest

from bacalhau_p2p.ipfs.store import pin_owners


def test_the_names_of_owners_are_these():
    assert pin_owners.USER == "user"
    assert pin_owners.FETCHED == "fetched"
    assert pin_owners.execution("e-1") == "execution:e-1"
    assert pin_owners.published("e-1") == "published:e-1"


@pytest.mark.parametrize(
    ("owner", "execution", "published"),
    [
        (pin_owners.execution("e-1"), True, False),
        (pin_owners.published("e-1"), False, True),
        (pin_owners.USER, False, False),
        ("executions", False, False),
    ],
)
def test_the_kind_of_an_owner_is_recognised(owner, execution, published):
    assert pin_owners.is_execution(owner) is execution
    assert pin_owners.is_published(owner) is published
