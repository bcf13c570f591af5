"""A job is checked at its submission with what the requester's own adapters can tell."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.errors import Fault, StorageError
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.requester.job_checks import INPUT_TIMEOUT, JobChecks
from bacalhau_p2p.verifiers.deterministic import DeterministicVerifier


class Provider:
    """`look` is awaited for the faults of an input; those of its parameters are `faulty`."""

    def __init__(self, look, faulty=()):
        self.look, self.faulty = look, faulty

    def faults(self, source: SpecConfig):
        return list(self.faulty)

    async def input_faults(self, source: SpecConfig):
        return await self.look()


def finds(*faults):
    async def look():
        await trio.lowlevel.checkpoint()
        return list(faults)

    return look


def raises(error):
    async def look():
        await trio.lowlevel.checkpoint()
        raise error

    return look


def job(*kinds, **extra):
    sources = [{"Target": f"/{n}", "Source": {"Type": kind}} for n, kind in enumerate(kinds)]
    return job_from_mapping({"Tasks": [{"Engine": {"Type": "noop"}, "InputSources": sources}], **extra})


def checks(**storage):
    return JobChecks(lambda spec: [], {"deterministic": DeterministicVerifier()}, storage)


async def test_a_job_without_inputs_is_checked_at_once():
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await checks().faults(job()) == []
    assert not scope.cancelled_caught


async def test_faults_of_inputs_are_named_by_their_paths_in_the_order_of_the_inputs():
    found = await checks(
        bad=Provider(finds(Fault("Params.URL", "is not base64"))),
        worse=Provider(finds(), faulty=[Fault("Params.Path", "missing")]),
        fine=Provider(finds()),
    ).faults(job("worse", "fine", "bad"))
    assert found == [
        Fault("Tasks[0].InputSources[0].Source.Params.Path", "missing"),
        Fault("Tasks[0].InputSources[2].Source.Params.URL", "is not base64"),
    ]


async def test_an_input_with_faulty_parameters_is_not_looked_at():
    provider = Provider(raises(AssertionError("looked at")), faulty=[Fault("Params.Path", "missing")])
    assert len(await checks(bad=provider).faults(job("bad"))) == 1


async def test_what_only_this_node_does_not_allow_is_no_fault_of_the_job():
    own = Fault("Params.SourcePath", "is not allowed on this node", this_node_only=True)
    assert await checks(own=Provider(finds(own))).faults(job("own")) == []


async def test_inputs_that_this_node_has_no_provider_for_are_left_to_others():
    assert await checks().faults(job("elsewhere")) == []


@pytest.mark.parametrize("error", [StorageError("disk on fire"), KeyError("x")])
async def test_a_provider_that_fails_refuses_no_job(error):
    assert await checks(broken=Provider(raises(error))).faults(job("broken")) == []


async def test_a_provider_that_hangs_is_not_waited_for(autojump_clock):
    bad = Provider(finds(Fault("Params.URL", "is not base64")))
    begun = trio.current_time()
    found = await checks(hangs=Provider(trio.sleep_forever), bad=bad).faults(job("hangs", "bad"))
    assert [fault.path for fault in found] == ["Tasks[0].InputSources[1].Source.Params.URL"]
    assert trio.current_time() - begun == pytest.approx(INPUT_TIMEOUT)


async def test_the_verifier_checks_its_parameters():
    verifier = {"Type": "deterministic", "Params": {"Confidence": 5}}
    (fault,) = await checks().faults(job(Count=2, Verifier=verifier))
    assert "Confidence" in fault.path


async def test_types_that_nobody_has_are_faults():
    unknown = Fault("Tasks[0].Engine.Type", "unknown engine")
    assert await JobChecks(lambda spec: [unknown], {}, {}).faults(job()) == [unknown]


async def test_a_verifier_whose_check_raises_refuses_the_job_with_a_reason():
    class Broken(DeterministicVerifier):
        def faults(self, spec):
            raise KeyError("confidence")

    checked = JobChecks(lambda spec: [], {"noop": Broken()}, {})
    (fault,) = await checked.faults(job())
    assert str(fault) == "Verifier: KeyError in this node's check by a verifier: 'confidence'"


@pytest.mark.parametrize("wrong", [None, "text", ["text"]])
async def test_an_adapter_that_returns_nonsense_finds_no_faults(wrong):
    async def look():
        await trio.lowlevel.checkpoint()
        return wrong

    assert await checks(one=Provider(look)).faults(job("one")) == []


@pytest.mark.parametrize(
    ("task", "fault"),
    [
        (
            {
                "Engine": {"Type": "wasm", "Params": {"EntryModule": "/m.wasm"}},
                "InputSources": [{"Target": "/m.wasm", "Source": {"Type": "odd"}}],
                "Network": {"Type": "Full"},
            },
            "Tasks[0].Network.Type: a WebAssembly job has no network; fetch what it needs as inputs, or use"
            " docker",
        ),
        (
            {"Engine": {"Type": "docker", "Params": {"Image": "x"}}, "Network": {"Type": "HTTP"}},
            "Tasks[0].Network.Domains: must name the domains that the job reaches, such as example.com",
        ),
    ],
)
async def test_a_network_that_no_node_can_give_is_a_fault(task, fault):
    found = await checks().faults(job_from_mapping({"Tasks": [task]}))
    assert list(map(str, found)) == [fault]


async def test_a_job_may_name_the_domains_that_it_asks():
    network = {"Type": "HTTP", "Domains": ["example.com", ".Example.org"]}
    task = {"Engine": {"Type": "docker", "Params": {"Image": "x"}}, "Network": network}
    spec = job_from_mapping({"Tasks": [task]})
    assert spec.task.network.domains == ("example.com", ".example.org")
    assert await checks().faults(spec) == []
