from __future__ import annotations

import inspect

import pytest

from bacalhau_p2p import Client, JobHandle, Result, SyncClient, SyncFunctionJob, SyncJobHandle, SyncResult
from bacalhau_p2p.client.twin_docs import described_by


@pytest.mark.parametrize(
    "kind", [Client, JobHandle, Result, SyncClient, SyncFunctionJob, SyncJobHandle, SyncResult]
)
def test_help_says_what_every_method_does(kind: type):
    methods = {
        name: member
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_") and inspect.isfunction(member)
    }
    assert [name for name, member in methods.items() if not inspect.getdoc(getattr(kind, name))] == []
    assert len(methods) > 2


class Twin:
    async def both(self) -> int:
        """What both do."""
        return 1

    async def own(self) -> None:
        """What only the twin does."""


def test_a_docstring_is_that_of_the_twin_unless_there_is_one():
    @described_by(Twin)
    class Blocking:
        def both(self) -> int:
            return 1

        def own(self) -> None:
            """What only this does."""

        def alone(self) -> None: ...

    assert Blocking.both.__doc__ == "As `Twin.both`, without `await`:\n\nWhat both do."
    assert Blocking.own.__doc__ == "What only this does."
    assert Blocking.alone.__doc__ is None
