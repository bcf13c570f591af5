from __future__ import annotations

import pytest

from bacalhau_p2p.client.job_places import DOCKER_PLACES, PLACES, numbered, renamed
from bacalhau_p2p.errors import Fault


@pytest.mark.parametrize(
    ("path", "argument"),
    [
        ("Count", "count"),
        ("Tasks[0].Resources.CPU", "cpu"),
        ("Tasks[0].Env.A", "env.A"),
        ("Tasks[0].Network.Domains[1]", "domains"),
        ("Tasks[0].Timeouts.QueueTimeout", "queue_timeout"),
        ("Tasks[0].InputSources[1].Source.Params.CID", "second"),
        ("Tasks[0].Engine.Params.Image", "image"),
        ("Counter", "Counter"),
        ("", ""),
    ],
)
def test_a_fault_is_told_at_the_argument_that_it_comes_from(path, argument):
    places = {**PLACES, **DOCKER_PLACES, **numbered("InputSources", ["first", "second"])}
    assert renamed(Fault(path, "is wrong"), places) == Fault(argument, "is wrong")
