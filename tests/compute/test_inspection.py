"""The look at a job before a bid, with providers that are slow, broken or right."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from bacalhau_p2p.compute.bidding import Findings
from bacalhau_p2p.compute.events import Examine, Examined, StopExamining
from bacalhau_p2p.compute.inspection import AT_ONCE, LOOK_WITHIN, REMEMBER_SIZE, REMEMBER_UNKNOWN, Examiner
from bacalhau_p2p.errors import ContentNotFound, StorageError
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.storage.interface import InputSize

ALICE = PeerID("alice")


class Shelf:
    """A storage provider whose answers are given by name: a value, an error, or a call."""

    def __init__(self, sizes: dict[str, object], here: dict[str, object] | None = None) -> None:
        self.sizes = sizes
        self.here = here or {}
        self.asked: list[str] = []
        self.hints: set[PeerID] = set()

    async def has_locally(self, source: SpecConfig) -> bool:
        return await self._answer(self.here.get(source.params["Name"], False))

    async def size(self, source: SpecConfig, *, hints=()) -> InputSize | None:
        self.asked.append(source.params["Name"])
        self.hints |= set(hints)
        return await self._answer(self.sizes[source.params["Name"]])

    async def _answer(self, value: object):
        await trio.lowlevel.checkpoint()
        if isinstance(value, Exception):
            raise value
        return await value() if callable(value) else value


class Opinion:
    """A probe."""

    def __init__(self, answer: str | Callable[[], Awaitable[str | None]] | None) -> None:
        self.answer = answer
        self.questions: list[bytes] = []

    async def refusal(self, question: bytes) -> str | None:
        self.questions.append(question)
        await trio.lowlevel.checkpoint()
        return await self.answer() if callable(self.answer) else self.answer


def job(*names: str, job_id: str = "j-1") -> Examine:
    sources = [
        {"Target": f"/{name}", "Source": {"Type": "shelf", "Params": {"Name": name}}} for name in names
    ]
    spec = job_from_mapping({"Tasks": [{"Engine": {"Type": "noop"}, "InputSources": sources}]})
    return Examine(ALICE, JobID(job_id), spec)


def examiner(shelf: Shelf, *, probes=(), **flags) -> Examiner:
    return Examiner({"shelf": shelf}, node_id=PeerID("me"), probes=probes, clock=trio.current_time, **flags)


# --- sizes ----------------------------------------------------------------------------------


async def test_sizes_of_all_inputs_are_added_up():
    shelf = Shelf({"a": InputSize(total=100, disk=200), "b": InputSize(total=50, local=50, disk=50)})
    found = await examiner(shelf).examine(job("a", "b"))
    assert found == Findings(input_bytes=150, local_input_bytes=50, disk=250)
    assert shelf.hints == {ALICE}


@pytest.mark.parametrize(
    "answer", [None, ContentNotFound("nobody has it"), OSError("disk"), TypeError("a plug-in's bug")]
)
async def test_an_input_whose_size_cannot_be_told_counts_as_nothing(answer):
    shelf = Shelf({"a": answer, "b": InputSize(total=7, disk=7)})
    assert await examiner(shelf).examine(job("a", "b")) == Findings(input_bytes=7, disk=7)


async def test_impossible_sizes_are_kept_within_what_a_bid_can_tell():
    shelf = Shelf({"a": InputSize(total=2**70, local=-5, disk=2**70), "b": InputSize(total=1, local=1)})
    found = await examiner(shelf).examine(job("a", "b"))
    assert found == Findings(input_bytes=2**60, local_input_bytes=1, disk=2**60)


async def test_slow_answers_are_not_waited_for_and_quick_ones_count(autojump_clock):
    shelf = Shelf({"a": trio.sleep_forever, "b": InputSize(total=7, disk=7), "c": trio.sleep_forever})
    found = await examiner(shelf).examine(job("a", "b", "c"))
    assert found == Findings(input_bytes=7, disk=7)
    assert trio.current_time() == pytest.approx(LOOK_WITHIN)


async def test_an_input_that_this_node_would_not_take_is_a_refusal():
    shelf = Shelf({"a": StorageError("an input has 2 GB, and this node takes 1 GB")})
    look = examiner(shelf)
    for _ in range(2):
        assert (await look.examine(job("a"))).refusal == "an input has 2 GB, and this node takes 1 GB"
    assert shelf.asked == ["a"]


async def test_others_are_asked_for_a_size_once_a_minute(autojump_clock):
    shelf = Shelf({"a": InputSize(total=9, disk=9)})
    look = examiner(shelf)
    for number in range(3):
        assert (await look.examine(job("a", job_id=f"j-{number}"))).input_bytes == 9
    assert shelf.asked == ["a"]
    await trio.sleep(REMEMBER_SIZE)
    await look.examine(job("a"))
    assert shelf.asked == ["a", "a"]


async def test_a_size_that_could_not_be_told_is_asked_for_again_sooner(autojump_clock):
    shelf = Shelf({"a": trio.sleep_forever})
    look = examiner(shelf)
    await look.examine(job("a"))
    assert await look.examine(job("a")) == Findings()
    assert trio.current_time() == pytest.approx(LOOK_WITHIN)
    await trio.sleep(REMEMBER_UNKNOWN)
    shelf.sizes["a"] = InputSize(total=9)
    assert (await look.examine(job("a"))).input_bytes == 9


async def test_a_look_that_was_stopped_leaves_no_false_memory(autojump_clock):
    shelf = Shelf({"a": trio.sleep_forever})
    look = examiner(shelf)
    with trio.move_on_after(0.1):
        await look.examine(job("a"))
    shelf.sizes["a"] = InputSize(total=9)
    assert (await look.examine(job("a"))).input_bytes == 9


async def test_what_came_here_meanwhile_is_noticed():
    shelf = Shelf({"a": InputSize(total=9, disk=18)})
    look = examiner(shelf)
    await look.examine(job("a"))
    shelf.here["a"], shelf.sizes["a"] = True, InputSize(total=9, local=9, disk=9)
    assert await look.examine(job("a")) == Findings(input_bytes=9, local_input_bytes=9, disk=9)


async def test_parameters_that_no_json_has_harm_nobody():
    """A peer's CBOR may hold what no job file can."""
    shelf = Shelf({"a": InputSize(total=9)})
    odd = {"Name": "a", "odd": {1: b"\xff", "k": float("nan"), b"k": [None, {}]}}
    asked = job("a")
    task = asked.spec.task
    source = task.input_sources[0].replace(source=SpecConfig(type="shelf", params=odd))
    spec = asked.spec.replace(tasks=(task.replace(input_sources=(source,)),))
    look = examiner(shelf, probes=[Opinion(None)])
    assert (await look.examine(Examine(ALICE, JobID("j-1"), spec))).input_bytes == 9


# --- locality -------------------------------------------------------------------------------


async def test_a_node_for_local_data_takes_a_job_whose_inputs_it_has():
    size = InputSize(total=5, local=5)
    shelf = Shelf({"a": size, "b": size}, here={"a": True, "b": True})
    found = await examiner(shelf, local_data_only=True).examine(job("a", "b"))
    assert found == Findings(input_bytes=10, local_input_bytes=10)


async def test_a_node_for_local_data_refuses_and_names_what_it_lacks():
    shelf = Shelf({}, here={"a": True})
    refusal = (await examiner(shelf, local_data_only=True).examine(job("a", "b", "c"))).refusal
    assert refusal == "runs only jobs whose inputs it has, and has not the inputs /b, /c"
    refusal = (await examiner(shelf, local_data_only=True).examine(job(*"bcdef"))).refusal
    assert refusal == "runs only jobs whose inputs it has, and has not the inputs /b, /c, /d and 2 more"
    assert shelf.asked == []


async def test_a_node_for_local_data_takes_jobs_without_inputs():
    assert await examiner(Shelf({}), local_data_only=True).examine(job()) == Findings()


async def test_what_cannot_be_found_out_in_time_is_not_taken_for_local(autojump_clock):
    shelf = Shelf({}, here={"a": trio.sleep_forever, "b": True})
    refusal = (await examiner(shelf, local_data_only=True).examine(job("a", "b"))).refusal
    assert refusal == "could not find out within 2 s whether it has the input /a"


async def test_a_provider_that_fails_has_nothing():
    shelf = Shelf({}, here={"a": RuntimeError("a plug-in's bug")})
    refusal = (await examiner(shelf, local_data_only=True).examine(job("a"))).refusal
    assert refusal == "runs only jobs whose inputs it has, and has not the input /a"


# --- probes ---------------------------------------------------------------------------------


async def test_every_probe_must_accept():
    yes, no = Opinion(None), Opinion("not on Sundays")
    assert await examiner(Shelf({}), probes=[yes]).examine(job()) == Findings()
    assert (await examiner(Shelf({}), probes=[yes, no]).examine(job())).refusal == "not on Sundays"


async def test_a_refusal_is_told_at_once(autojump_clock):
    shelf = Shelf({"a": trio.sleep_forever})
    probes = [Opinion("no"), Opinion(trio.sleep_forever)]
    assert (await examiner(shelf, probes=probes).examine(job("a"))).refusal == "no"
    assert trio.current_time() < 0.1


async def test_a_probe_is_asked_about_the_job_as_the_api_has_it():
    import json

    probe = Opinion(None)
    await examiner(Shelf({"a": None}), probes=[probe]).examine(job("a"))
    question = json.loads(probe.questions[0])
    assert {name: question[name] for name in ("NodeID", "RequesterID", "JobID")} == {
        "NodeID": "me",
        "RequesterID": "alice",
        "JobID": "j-1",
    }
    assert question["Job"]["ID"] == "j-1"
    assert question["Job"]["Tasks"][0]["InputSources"][0]["Source"] == {
        "Type": "shelf",
        "Params": {"Name": "a"},
    }


# --- tasks ----------------------------------------------------------------------------------


async def test_looks_do_not_wait_for_each_other_and_one_can_be_stopped(autojump_clock):
    shelf = Shelf({"slow": trio.sleep_forever, "quick": InputSize(total=1)})
    look, told = examiner(shelf), list[Examined]()
    async with trio.open_nursery() as nursery:
        look.begin(job("slow", job_id="j-1"), nursery, told.append)
        look.begin(job("slow", job_id="j-2"), nursery, told.append)
        look.begin(job("quick", job_id="j-3"), nursery, told.append)
        await trio.sleep(0.5)
        assert told == [Examined(ALICE, JobID("j-3"), Findings(input_bytes=1))]
        look.stop(StopExamining(ALICE, JobID("j-1")))
        look.stop(StopExamining(ALICE, JobID("j-3")))  # is over
    assert [each.job_id for each in told] == ["j-3", "j-2"]
    assert trio.current_time() == pytest.approx(LOOK_WITHIN)


async def test_a_crowd_of_slow_looks_delays_no_bid_beyond_its_time(autojump_clock):
    shelf = Shelf({str(number): trio.sleep_forever for number in range(3 * AT_ONCE)})
    look, told = examiner(shelf), list[Examined]()
    async with trio.open_nursery() as nursery:
        for number in range(3 * AT_ONCE):
            look.begin(job(str(number), job_id=f"j-{number}"), nursery, told.append)
    assert len(told) == 3 * AT_ONCE
    assert len(shelf.asked) == AT_ONCE
    assert trio.current_time() == pytest.approx(LOOK_WITHIN)
