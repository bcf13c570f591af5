"""Nodes whose machines lose power keep what they promised, and a careless store is noticed."""

from __future__ import annotations

from random import Random
from unittest import mock

import pytest

from tests.simulation.checks.violation import Violation
from tests.simulation.mutants import mutated
from tests.simulation.power.cuts import cut
from tests.simulation.power.disk import Disk, Loss
from tests.simulation.power.recorder import Connection
from tests.simulation.power.recording import record
from tests.simulation.power.trace import Kind, Operation


def test_after_a_power_cut_anywhere_promises_hold_and_the_network_goes_on(tmp_path):
    findings = cut(record(1, tmp_path / "work"), 200, resume=6)
    assert (findings.cuts, findings.resumed) == (200, 6)
    assert findings.kinds.keys() == {loss.value for loss in Loss}
    assert findings.lost_something > 10


def careless(level):
    """Every commit that should be power safe is at this level of `PRAGMA synchronous`."""
    execute = Connection.execute

    def instead(self, statement, *rest, **named):
        return execute(self, statement.replace("=FULL", f"={level}"), *rest, **named)

    return mock.patch.object(Connection, "execute", instead)


CUTS = 1000
"""About as many as there are places: few of them show some of the faults."""


@pytest.mark.parametrize(
    ("mutant", "promises"),
    [
        (careless("OFF"), {"the store is whole", "the store opens"}),
        (careless("NORMAL"), {"promises survive"}),
        (mutated("commit without power safety"), {"promises survive"}),
        (mutated("acknowledge before the commit"), {"committed before it is promised"}),
        (mutated("mark messages as processed before their effects"), {"what is acknowledged has its effect"}),
    ],
    ids=[
        "synchronous off",
        "synchronous normal",
        "no power-safe commits",
        "early acknowledgements",
        "early marks",
    ],
)
def test_a_careless_store_is_noticed(mutant, promises, tmp_path):
    """A plan that sends before it commits is not noticed here: the driver lets the frames of a tick go at its
    end. `test_simulated_machines` notices it."""
    with mutant, pytest.raises(Violation) as caught:
        cut(record(1, tmp_path / "work"), CUTS)
    assert caught.value.promise in promises


def written(*operations):
    disk = Disk()
    for operation in operations:
        disk.take(operation)
    return disk


def test_what_was_synced_survives_and_the_rest_may_be_lost_or_torn():
    disk = written(
        Operation("d/f", Kind.CREATE),
        Operation("d/f", Kind.WRITE, 0, b"safe" * 256),
        Operation("d/f", Kind.SYNC),
        Operation("d/f", Kind.WRITE, 512, b"new!" * 256),
    )
    assert dict(disk.after_cut(Loss.ALL, Random(1))) == {"d/f": b"safe" * 256}
    assert dict(disk.after_cut(Loss.NONE, Random(1))) == {"d/f": b"safe" * 128 + b"new!" * 256}
    seen = {dict(disk.after_cut(Loss.TORN, Random(seed)))["d/f"] for seed in range(40)}
    assert b"safe" * 256 + b"new!" * 128 in seen  # only the second sector arrived
    assert all(content.startswith(b"safe" * 128) for content in seen)


def test_a_file_is_gone_for_good_once_its_folder_was_synced():
    made = [Operation("d/f", Kind.CREATE), Operation("d/f", Kind.WRITE, 0, b"x"), Operation("d/f", Kind.SYNC)]
    deleted = [*made, Operation("d/f", Kind.DELETE)]
    assert dict(written(*deleted).after_cut(Loss.ALL, Random(1))) == {"d/f": b"x"}
    assert dict(written(*deleted).after_cut(Loss.NONE, Random(1))) == {}
    assert dict(written(*deleted, Operation("d", Kind.SYNC_FOLDER)).after_cut(Loss.ALL, Random(1))) == {}
