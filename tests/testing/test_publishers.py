"""The conformance suite for publishers fails for publishers that break a promise."""

from __future__ import annotations

import pytest

from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.publishers.noop import NoopPublisher
from bacalhau_p2p.testing.publishers import PUBLISHER_CHECKS, PublisherKit
from tests.support.results import result_cid

CHECKS = {check.__name__.removeprefix("check_"): check for check in PUBLISHER_CHECKS}


class PublishesAnotherResult(NoopPublisher):
    async def publish(self, publisher, job_id, execution_id, cid):
        return PublishedResult(
            cid=result_cid("another"), location=SpecConfig(type="noop", params={"CID": cid})
        )


class IsUnavailable(NoopPublisher):
    async def unavailable(self):
        return "never works"


@pytest.mark.parametrize(
    ("publisher", "check"),
    [
        (PublishesAnotherResult, "the_published_cid_is_the_verified_one"),
        (IsUnavailable, "it_is_available"),
        (NoopPublisher, "faults_are_named_by_path"),
        (NoopPublisher, "a_missing_result_is_not_published"),
    ],
)
async def test_a_broken_publisher_fails(publisher, check):
    kit = PublisherKit(
        publisher=publisher(),
        valid=SpecConfig(type="noop"),
        invalid=[(SpecConfig(type="noop", params={"Bucket": "b"}), "Params.Bucket")],
        cid=result_cid("result"),
        unknown=result_cid("other"),
    )
    with pytest.raises(AssertionError):
        await CHECKS[check](kit)
