"""Conformance suite for publishers: what every one must do, wherever it publishes to.

    @pytest.mark.parametrize("check", PUBLISHER_CHECKS, ids=lambda check: check.__name__)
    async def test_publisher_conforms(check, ...):
        await check(PublisherKit(publisher=MyPublisher(...), valid=..., invalid=[...], cid=..., unknown=...))

A check passes by returning, and fails by raising AssertionError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from bacalhau_p2p.errors import Fault, PublisherError
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.publishers.interface import Publisher
from bacalhau_p2p.testing.purity import no_io


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherKit:
    """What the checks need of a test.

    `valid` are parameters to publish with, `invalid` are parameters that must be refused, each with the
    path of the fault. `cid` is a result in the node's store, `unknown` one that is not there.
    """

    publisher: Publisher
    valid: SpecConfig
    invalid: Sequence[tuple[SpecConfig, str]]
    cid: str
    unknown: str
    patience: float = 30

    def faults(self, config: SpecConfig) -> list[Fault]:
        with no_io():
            return self.publisher.faults(config)

    async def publish(self, cid: str, execution: str = "e-1") -> PublishedResult:
        with trio.fail_after(self.patience):
            return await self.publisher.publish(self.valid, JobID("j-1"), ExecutionID(execution), cid)


async def check_type_is_lower_case(kit: PublisherKit) -> None:
    assert kit.publisher.type == kit.publisher.type.lower() != ""


async def check_valid_parameters_have_no_faults(kit: PublisherKit) -> None:
    assert kit.faults(kit.valid) == []


async def check_faults_are_named_by_path(kit: PublisherKit) -> None:
    for config, path in kit.invalid:
        assert path in [fault.path for fault in kit.faults(config)], f"no fault at {path}: {config}"


async def check_it_is_available(kit: PublisherKit) -> None:
    assert await kit.publisher.unavailable() is None


async def check_the_published_cid_is_the_verified_one(kit: PublisherKit) -> None:
    result = await kit.publish(kit.cid)
    assert result.cid == kit.cid
    assert result.location.type == kit.publisher.type
    assert result.location.params


async def check_publishing_twice_is_harmless(kit: PublisherKit) -> None:
    first = await kit.publish(kit.cid)
    again = await kit.publish(kit.cid)
    other = await kit.publish(kit.cid, "e-2")
    assert first.cid == again.cid == other.cid


async def check_a_missing_result_is_not_published(kit: PublisherKit) -> None:
    for cid in (kit.unknown, "not a CID"):
        error = await _failure(kit, cid)
        assert cid in str(error)


async def _failure(kit: PublisherKit, cid: str) -> PublisherError:
    try:
        await kit.publish(cid)
    except PublisherError as error:
        return error
    raise AssertionError(f"published, but must fail: {cid}")


PUBLISHER_CHECKS: Sequence[Callable[[PublisherKit], Awaitable[None]]] = (
    check_type_is_lower_case,
    check_valid_parameters_have_no_faults,
    check_faults_are_named_by_path,
    check_it_is_available,
    check_the_published_cid_is_the_verified_one,
    check_publishing_twice_is_harmless,
    check_a_missing_result_is_not_published,
)
"""Every check, in the order in which they are best read."""
