"""What is found out about a job's inputs, from providers that are slow, broken or right."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.compute.bidding import Findings
from bacalhau_p2p.compute.events import Inspect
from bacalhau_p2p.compute.input_inspection import ANSWER_TIMEOUT, REMEMBER_SIZE_FOR, REMEMBER_UNKNOWN_FOR
from bacalhau_p2p.errors import ContentNotFound, Fault, StorageError
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.storage.interface import InputSize
from tests.support.machines.inspection_bench import ALICE, FakeProbe, FakeProvider, inspector, job

# --- sizes ----------------------------------------------------------------------------------


async def test_the_sizes_of_all_inputs_are_added_up():
    provider = FakeProvider(
        {"a": InputSize(total=100, disk=200), "b": InputSize(total=50, local=50, disk=50)}
    )
    found = await inspector(provider).inspect(job("a", "b"))
    assert found == Findings(input_bytes=150, local_input_bytes=50, disk=250)
    assert provider.hints == {ALICE}


@pytest.mark.parametrize(
    "answer", [None, ContentNotFound("nobody has it"), OSError("disk"), TypeError("a plug-in's bug")]
)
async def test_an_input_of_unknown_size_counts_as_nothing(answer):
    provider = FakeProvider({"a": answer, "b": InputSize(total=7, disk=7)})
    assert await inspector(provider).inspect(job("a", "b")) == Findings(input_bytes=7, disk=7, unsized=True)


async def test_impossible_sizes_are_kept_within_what_a_bid_can_say():
    provider = FakeProvider(
        {"a": InputSize(total=2**70, local=-5, disk=2**70), "b": InputSize(total=1, local=1)}
    )
    found = await inspector(provider).inspect(job("a", "b"))
    assert found == Findings(input_bytes=2**60, local_input_bytes=1, disk=2**60)


async def test_slow_answers_are_not_waited_for_and_quick_ones_count(autojump_clock):
    provider = FakeProvider(
        {"a": trio.sleep_forever, "b": InputSize(total=7, disk=7), "c": trio.sleep_forever}
    )
    found = await inspector(provider).inspect(job("a", "b", "c"))
    assert found == Findings(input_bytes=7, disk=7, unsized=True)
    assert trio.current_time() == pytest.approx(ANSWER_TIMEOUT)


async def test_an_input_that_this_node_would_not_take_is_a_refusal():
    provider = FakeProvider({"a": StorageError("an input has 2 GB, and this node takes 1 GB")})
    inspection = inspector(provider)
    for _ in range(2):
        found = await inspection.inspect(job("a"))
        assert found.refusal == "an input has 2 GB, and this node takes 1 GB"
    assert provider.asked == ["a"]


async def test_the_size_of_each_input_is_found_with_what_of_it_is_here():
    provider = FakeProvider({"a": InputSize(total=9, local=4), "b": None, "c": InputSize(total=2)})
    assert (await inspector(provider).inspect(job("a", "b", "c"))).sizes == ((9, 4), None, (2, 0))


async def test_a_fault_of_an_input_is_a_refusal_with_its_path():
    fault = Fault("Params.Path", "is not a folder", this_node_only=True)
    provider = FakeProvider({"a": InputSize(total=1), "b": InputSize(total=1)}, faults={"b": [fault]})
    found = await inspector(provider).inspect(job("a", "b"))
    assert found.refusal == "Tasks[0].InputSources[1].Source.Params.Path: is not a folder"
    assert provider.asked == ["a"]


async def test_a_size_is_asked_for_once_a_minute(autojump_clock):
    provider = FakeProvider({"a": InputSize(total=9, disk=9)})
    inspection = inspector(provider)
    for number in range(3):
        assert (await inspection.inspect(job("a", job_id=f"j-{number}"))).input_bytes == 9
    assert provider.asked == ["a"]
    await trio.sleep(REMEMBER_SIZE_FOR)
    await inspection.inspect(job("a"))
    assert provider.asked == ["a", "a"]


async def test_of_an_input_that_is_divided_the_size_of_a_part_counts():
    provider = FakeProvider({"a": InputSize(total=9, disk=18), "b": InputSize(total=1, disk=2)})
    inspection = inspector(provider)
    found = await inspection.inspect(job("a", "b", divided="a", count=4))
    assert (found.disk, found.sizes) == (20, ((9, 0), (1, 0)))
    assert sorted(provider.asked) == ["a/4", "b"]
    await inspection.inspect(job("a", "b", divided="a", count=5))
    await inspection.inspect(job("a", divided="a", count=1))
    assert sorted(provider.asked) == ["a", "a/4", "a/5", "b"]


async def test_an_unknown_size_is_asked_for_again_sooner(autojump_clock):
    provider = FakeProvider({"a": trio.sleep_forever})
    inspection = inspector(provider)
    await inspection.inspect(job("a"))
    assert await inspection.inspect(job("a")) == Findings(unsized=True)
    assert trio.current_time() == pytest.approx(ANSWER_TIMEOUT)
    await trio.sleep(REMEMBER_UNKNOWN_FOR)
    provider.sizes["a"] = InputSize(total=9)
    assert (await inspection.inspect(job("a"))).input_bytes == 9


async def test_an_inspection_that_was_stopped_is_not_remembered_as_unknown(autojump_clock):
    provider = FakeProvider({"a": trio.sleep_forever})
    inspection = inspector(provider)
    with trio.move_on_after(0.1):
        await inspection.inspect(job("a"))
    provider.sizes["a"] = InputSize(total=9)
    assert (await inspection.inspect(job("a"))).input_bytes == 9


async def test_an_input_that_has_become_local_is_noticed():
    provider = FakeProvider({"a": InputSize(total=9, disk=18)})
    inspection = inspector(provider)
    await inspection.inspect(job("a"))
    provider.local["a"], provider.sizes["a"] = True, InputSize(total=9, local=9, disk=9)
    assert await inspection.inspect(job("a")) == Findings(input_bytes=9, local_input_bytes=9, disk=9)


async def test_parameters_that_json_cannot_hold_do_no_harm():
    """A peer's CBOR may hold what no job file can."""
    provider = FakeProvider({"a": InputSize(total=9)})
    odd = {"Name": "a", "odd": {1: b"\xff", "k": float("nan"), b"k": [None, {}]}}
    asked = job("a")
    task = asked.spec.task
    source = task.input_sources[0].replace(source=SpecConfig.model_construct(type="fake", params=odd))
    spec = asked.spec.replace(tasks=(task.replace(input_sources=(source,)),))
    inspection = inspector(provider, probes=[FakeProbe(None)])
    assert (await inspection.inspect(Inspect(ALICE, JobID("j-1"), spec))).input_bytes == 9


# --- locality -------------------------------------------------------------------------------


async def test_a_node_for_local_data_takes_a_job_whose_inputs_it_has():
    size = InputSize(total=5, local=5)
    provider = FakeProvider({"a": size, "b": size}, local={"a": True, "b": True})
    found = await inspector(provider, local_data_only=True).inspect(job("a", "b"))
    assert found == Findings(input_bytes=10, local_input_bytes=10)


async def test_a_node_for_local_data_names_the_inputs_that_are_missing():
    provider = FakeProvider({}, local={"a": True})
    inspection = inspector(provider, local_data_only=True)
    refusal = (await inspection.inspect(job("a", "b"))).refusal
    assert refusal == "runs only jobs whose inputs are local; /b is missing"
    refusal = (await inspection.inspect(job(*"bcdef"))).refusal
    assert refusal == "runs only jobs whose inputs are local; /b, /c, /d and 2 more are missing"
    assert provider.asked == []


async def test_a_node_for_local_data_takes_jobs_without_inputs():
    assert await inspector(FakeProvider({}), local_data_only=True).inspect(job()) == Findings()


async def test_an_input_of_unknown_locality_is_a_refusal(autojump_clock):
    provider = FakeProvider({}, local={"a": trio.sleep_forever, "b": True})
    refusal = (await inspector(provider, local_data_only=True).inspect(job("a", "b"))).refusal
    assert refusal == "could not find out within 2 s whether /a is local"


async def test_an_input_whose_provider_fails_is_not_local():
    provider = FakeProvider({}, local={"a": RuntimeError("a plug-in's bug")})
    refusal = (await inspector(provider, local_data_only=True).inspect(job("a"))).refusal
    assert refusal == "runs only jobs whose inputs are local; /a is missing"
