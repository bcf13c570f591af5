"""The draw: the same for everybody, and even."""

from __future__ import annotations

import pytest

from bacalhau_p2p.bprotocol.draw import is_drawn, lot
from bacalhau_p2p.bprotocol.messages import JobAnnounced
from bacalhau_p2p.model.base import JobID, PeerID
from tests.support.machines.compute_bench import SMALL

NODES = [PeerID(f"node-{number}") for number in range(1000)]


def announced(chance: float, job_id: str = "j-1") -> JobAnnounced:
    return JobAnnounced(
        job_id=JobID(job_id), spec=SMALL, bids_wanted=3, round=1, chance=chance, deadline=60.0
    )


def test_a_lot_is_what_the_specification_says():
    """`sha256("j-1\\nnode-0")` begins with these 8 bytes."""
    assert lot(JobID("j-1"), PeerID("node-0")) == (0xEBF4DE6757453C8A >> 11) / 2**53


def test_about_as_many_nodes_are_drawn_as_are_asked():
    for job in ("j-1", "j-2", "j-3"):
        assert 70 < sum(is_drawn(announced(0.1, job), node) for node in NODES) < 130


def test_everybody_is_drawn_unless_the_announcement_says_otherwise():
    assert all(is_drawn(announced(1.0), node) for node in NODES)


def test_a_wider_draw_reaches_those_that_a_narrower_one_reached():
    narrow = {node for node in NODES if is_drawn(announced(0.01), node)}
    wide = {node for node in NODES if is_drawn(announced(0.08), node)}
    assert narrow < wide


def test_each_job_draws_other_nodes():
    first, second = ({n for n in NODES if is_drawn(announced(0.1, job), n)} for job in ("j-1", "j-2"))
    assert len(first & second) < 30


@pytest.mark.parametrize("job_id", ["\ud800", "\N{SNOWMAN}"])
def test_any_id_has_a_lot(job_id):
    assert 0 <= lot(JobID(job_id), NODES[0]) < 1
