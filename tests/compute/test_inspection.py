"""The inspection of a job before a bid: probes, shortages, and many inspections side by side."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import trio

from bacalhau_p2p.compute.bidding import Findings
from bacalhau_p2p.compute.events import Inspected, StopInspection
from bacalhau_p2p.compute.input_inspection import ANSWER_TIMEOUT, MAX_CONCURRENT
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.storage.interface import InputSize
from tests.support.machines.inspection_bench import ALICE, FakeProbe, FakeProvider, inspector, job

# --- probes ---------------------------------------------------------------------------------


async def test_every_probe_must_accept():
    yes, no = FakeProbe(None), FakeProbe("not on Sundays")
    assert await inspector(FakeProvider({}), probes=[yes]).inspect(job()) == Findings()
    assert (await inspector(FakeProvider({}), probes=[yes, no]).inspect(job())).refusal == "not on Sundays"


async def test_a_refusal_ends_the_inspection(autojump_clock):
    provider = FakeProvider({"a": trio.sleep_forever})
    probes = [FakeProbe("no"), FakeProbe(trio.sleep_forever)]
    assert (await inspector(provider, probes=probes).inspect(job("a"))).refusal == "no"
    assert trio.current_time() < 0.1


async def test_a_probe_gets_the_job_as_the_api_has_it():
    probe = FakeProbe(None)
    await inspector(FakeProvider({"a": None}), probes=[probe]).inspect(job("a"))
    question = json.loads(probe.questions[0])
    assert {name: question[name] for name in ("NodeID", "RequesterID", "JobID")} == {
        "NodeID": "me",
        "RequesterID": "alice",
        "JobID": "j-1",
    }
    assert question["Job"]["ID"] == "j-1"
    assert question["Job"]["Tasks"][0]["InputSources"][0]["Source"] == {
        "Type": "fake",
        "Params": {"Name": "a"},
    }


# --- disk -----------------------------------------------------------------------------------


async def test_a_shortage_of_disk_for_the_inputs_is_found_with_their_sizes():
    provider = FakeProvider({"a": InputSize(total=100, disk=200), "b": InputSize(total=50, disk=100)})

    def shortage(disk: int) -> str | None:
        return f"lacks {disk} bytes" if disk > 250 else None

    inspection = inspector(provider, resource_shortage=shortage)
    assert await inspection.inspect(job("a", "b")) == Findings(
        shortage="lacks 300 bytes", input_bytes=150, disk=300
    )
    assert await inspection.inspect(job("a")) == Findings(input_bytes=100, disk=200)


# --- locality -------------------------------------------------------------------------------


async def test_a_node_that_is_asked_only_if_it_has_the_inputs_looks_for_nothing_else():
    provider = FakeProvider(
        {"here": InputSize(total=5, local=5), "there": InputSize(total=5)}, local={"here": True}
    )
    asked = replace(job("here", "there"), only_if_local=True)
    refusal = (await inspector(provider).inspect(asked)).refusal
    assert refusal is not None
    assert "/there" in refusal
    assert (await inspector(provider).inspect(job("here", "there"))).refusal is None


# --- tasks ----------------------------------------------------------------------------------


async def test_inspections_do_not_wait_for_each_other_and_one_can_be_stopped(autojump_clock):
    provider = FakeProvider({"slow": trio.sleep_forever, "quick": InputSize(total=1)})
    inspection, reported = inspector(provider), list[Inspected]()
    async with trio.open_nursery() as nursery:
        inspection.begin(job("slow", job_id="j-1"), nursery, reported.append)
        inspection.begin(job("slow", job_id="j-2"), nursery, reported.append)
        inspection.begin(job("quick", job_id="j-3"), nursery, reported.append)
        await trio.sleep(0.5)
        assert reported == [Inspected(ALICE, JobID("j-3"), Findings(input_bytes=1))]
        inspection.stop(StopInspection(ALICE, JobID("j-1")))
        inspection.stop(StopInspection(ALICE, JobID("j-3")))  # has ended
    assert [each.job_id for each in reported] == ["j-3", "j-2"]
    assert trio.current_time() == pytest.approx(ANSWER_TIMEOUT)


async def test_a_crowd_of_slow_inspections_delays_no_bid_beyond_its_time(autojump_clock):
    provider = FakeProvider({str(number): trio.sleep_forever for number in range(3 * MAX_CONCURRENT)})
    inspection, reported = inspector(provider), list[Inspected]()
    async with trio.open_nursery() as nursery:
        for number in range(3 * MAX_CONCURRENT):
            inspection.begin(job(str(number), job_id=f"j-{number}"), nursery, reported.append)
    assert len(reported) == 3 * MAX_CONCURRENT
    assert len(provider.asked) == MAX_CONCURRENT
    assert trio.current_time() == pytest.approx(ANSWER_TIMEOUT)
