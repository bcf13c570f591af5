"""What an earlier process of a node left behind is removed at its next start."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.compute.folders import SET_ASIDE
from bacalhau_p2p.compute.leftovers import SWEEP_INTERVAL, release_pins, set_folders_aside, sweep
from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.model.base import ExecutionID


def test_folders_are_set_aside_but_for_those_to_keep(tmp_path):
    for name in ("gone", "kept"):
        (tmp_path / "all" / name / "results").mkdir(parents=True)
    set_folders_aside(tmp_path / "all", {"kept"})
    assert {path.name for path in (tmp_path / "all").iterdir()} == {"kept", SET_ASIDE}
    assert len(list((tmp_path / "all" / SET_ASIDE).iterdir())) == 1


def test_the_folder_is_made_at_the_first_start(tmp_path):
    set_folders_aside(tmp_path / "all", set())
    assert list((tmp_path / "all").iterdir()) == []


async def test_pins_of_executions_that_are_not_active_are_removed(content, tmp_path):
    (tmp_path / "result").write_text("hello\n")
    added = await content.add(tmp_path / "result", pin_owner=pin_owners.execution("e-gone"))
    for owner in (pin_owners.execution("e-active"), pin_owners.published("e-gone"), pin_owners.USER):
        await content.pin(added.cid, owner)
    await release_pins(content, [ExecutionID("e-active")])
    assert {pin.owner for pin in await content.pins(added.cid)} == {
        pin_owners.execution("e-active"),
        pin_owners.published("e-gone"),
        pin_owners.USER,
    }


class Engine(NoopExecutor):
    """Fails at its first sweep."""

    def __init__(self, error):
        self.error, self.swept = error, []

    async def sweep(self, alive):
        self.swept.append((trio.current_time(), set(alive)))
        if len(self.swept) == 1:
            raise self.error


@pytest.mark.parametrize("error", [ExecutorError("no engine answers"), KeyError("x")])
async def test_an_engine_that_cannot_be_swept_is_asked_again_later(autojump_clock, error):
    engine, alive = Engine(error), {ExecutionID("e-1")}

    def alive_now():
        return set(alive)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweep, engine, alive_now)
        await trio.sleep(1)
        alive.add(ExecutionID("e-2"))
    (first, _), (second, later) = engine.swept
    assert second - first == pytest.approx(SWEEP_INTERVAL)
    assert later == {"e-1", "e-2"}
