"""Each peer pays for what it sends and for the strangers it brings; who goes on is cut off for a while."""

from __future__ import annotations

import cbor2
import pytest

from bacalhau_p2p.transports import budgets as limits
from bacalhau_p2p.transports.budgets import Budgets, Source

HONEST, HUB, MALLORY = "honest", "hub", "mallory"
SMALL = cbor2.dumps([1])


class Bench:
    def __init__(self) -> None:
        self.now = 1_000.0
        self.connected = {HONEST, HUB, MALLORY}
        self.cut_off = []
        self.budgets = Budgets(
            lambda: self.now,
            is_connected=lambda peer: peer in self.connected,
            cut_off=lambda peer, seconds: self.cut_off.append((peer, seconds)),
        )

    def broadcasts(self, author, neighbour, seconds, per_second, payload=SMALL) -> int:
        """How many of so many broadcasts are taken."""
        taken = 0
        for _ in range(round(seconds * per_second)):
            self.now += 1 / per_second
            taken += self.budgets.admits(author, neighbour) and self.budgets.takes_broadcast(
                author, neighbour, payload
            )
        return taken

    def frames(self, peer, seconds, per_second, size=300) -> int:
        taken = 0
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            taken += sum(self.budgets.takes(peer, size) for _ in range(per_second // 10))
        return taken


@pytest.fixture
def bench():
    return Bench()


def announcements(count) -> bytes:
    return cbor2.dumps([{"kind": "job_announced"}] * count)


# --- honest peers -------------------------------------------------------------------------------


def test_ten_times_what_a_busy_requester_sends_is_within_its_budget(bench):
    # Ten jobs a second to a hundred nodes are ten announcements and ten ends of rounds a second.
    assert bench.broadcasts(HONEST, HONEST, seconds=120, per_second=200) == 120 * 200
    assert bench.frames(HONEST, seconds=120, per_second=1_000) == 120 * 1_000
    assert bench.budgets.offences.worst() == {}


def test_fifty_jobs_in_flight_for_minutes_are_within_the_budget(bench):
    # 300 jobs a second: announced and closed in a hundred broadcasts a second, and four answers a job.
    assert bench.broadcasts(HONEST, HONEST, 180, 100, announcements(6)) == 180 * 100
    assert bench.frames(HONEST, seconds=180, per_second=1_200) == 180 * 1_200
    assert bench.budgets.offences.worst() == {}


def test_a_full_outbox_after_an_outage_is_within_the_budget(bench):
    assert bench.frames(HONEST, seconds=0.1, per_second=100_000, size=2_000) == 10_000
    assert bench.budgets.offences.worst() == {}


def test_a_hub_that_passes_on_all_that_it_takes_of_strangers_is_never_cut_off(bench):
    bench.broadcasts("stranger", HUB, seconds=600, per_second=limits.ALL_STRANGERS_PER_SECOND)
    assert bench.cut_off == []


def test_a_hub_that_passes_on_ten_busy_requesters_is_never_cut_off(bench):
    for author in (authors := [f"requester-{n}" for n in range(10)]):
        bench.budgets.answered(author)
    taken = sum(
        bench.broadcasts(author, HUB, seconds=0.1, per_second=10) for _ in range(600) for author in authors
    )
    assert taken == 6_000
    assert bench.budgets.offences.worst() == {}


# --- floods -------------------------------------------------------------------------------------


def test_a_flood_is_dropped_beyond_its_budget_then_cut_off_and_named(bench):
    seconds = 0
    while not bench.cut_off:
        bench.broadcasts(MALLORY, MALLORY, 1, 34, announcements(300))
        seconds += 1
    assert seconds <= 2
    assert bench.cut_off == [(MALLORY, limits.CUT_OFF)]
    assert not bench.budgets.admits(MALLORY, HUB)
    assert bench.budgets.offences.of(MALLORY)["over_budget_messages"] > 1_000
    assert list(bench.budgets.cut_off_for()) == [MALLORY]


def test_frames_are_limited_by_number_and_by_bytes(bench):
    bench.frames(MALLORY, seconds=10, per_second=10_000)
    assert bench.cut_off == [(MALLORY, limits.CUT_OFF)]
    bench.frames("big", seconds=60, per_second=10, size=1024 * 1024)
    assert bench.budgets.offences.of("big")["over_budget_bytes"] > 0


def test_a_flood_of_a_peer_that_has_answered_is_cut_off_a_little_later(bench):
    bench.budgets.answered(MALLORY)
    bench.broadcasts(MALLORY, MALLORY, 2, 34, announcements(300))
    assert bench.cut_off == []
    bench.broadcasts(MALLORY, MALLORY, 4, 34, announcements(300))
    assert bench.cut_off == [(MALLORY, limits.CUT_OFF)]


def test_who_sends_what_cannot_be_read_is_cut_off_soon(bench):
    for _ in range(limits.MALFORMED_BURST):
        bench.budgets.malformed(HONEST, "not plain CBOR")
    assert bench.cut_off == []
    for _ in range(2 * limits.MALFORMED_BURST):
        bench.budgets.malformed(MALLORY, "not plain CBOR")
    assert bench.cut_off == [(MALLORY, limits.CUT_OFF)]


def test_a_neighbour_that_hands_over_too_many_broadcasts_is_dropped_before_anything_is_verified(bench):
    admitted = 0
    for _ in range(3 * limits.BROADCAST_BURST):
        bench.now += 0.0001
        admitted += bench.budgets.admits("whoever", MALLORY)
    assert limits.BROADCAST_BURST <= admitted <= limits.BROADCAST_BURST + 600
    assert "over_budget_broadcasts" in bench.budgets.offences.of(MALLORY)


def test_who_comes_back_is_cut_off_for_longer_each_time_and_forgiven_at_last(bench):
    for _ in range(10):
        bench.budgets.cut_off(MALLORY, "again")
        bench.now += bench.cut_off[-1][1]
        assert not bench.budgets.is_cut_off(MALLORY)
    seconds = [seconds for _, seconds in bench.cut_off]
    assert seconds[:3] == [60, 120, 240]
    assert seconds[-1] == limits.LONGEST_CUT_OFF
    bench.now += limits.FORGIVEN_AFTER
    bench.budgets.cut_off(MALLORY, "after years")
    assert bench.cut_off[-1] == (MALLORY, limits.CUT_OFF)


def test_after_the_cut_off_a_peer_has_its_budget_again(bench):
    bench.frames(MALLORY, seconds=10, per_second=10_000)
    bench.now += limits.CUT_OFF
    assert bench.frames(MALLORY, seconds=1, per_second=1_000) == 1_000


def test_a_broadcast_that_claims_to_be_endless_counts_for_no_more_than_the_largest(bench):
    endless = b"\x9b" + b"\xff" * 8
    assert bench.broadcasts(MALLORY, MALLORY, 1, 10, endless) == 10
    assert bench.cut_off == []


# --- strangers ----------------------------------------------------------------------------------


def test_invented_authors_share_the_budget_of_the_neighbour_that_brings_them(bench):
    authors = iter(range(10**6))
    taken = sum(
        bench.broadcasts(f"invented-{next(authors)}", MALLORY, seconds=0.003, per_second=334)
        for _ in range(9_000)
    )
    assert taken <= limits.STRANGER_BURST + 27 * limits.STRANGERS_PER_SECOND + 1
    assert bench.budgets.offences.of(MALLORY)["strangers"] == 9_000 - taken
    assert bench.broadcasts(HONEST, HONEST, 1, 10) == 10
    assert bench.broadcasts("stranger", HUB, 1, 10) == 10


def test_all_strangers_together_are_limited(bench):
    neighbours = [f"neighbour-{number}" for number in range(100)]
    bench.connected.update(neighbours)
    taken = sum(bench.broadcasts("stranger", each, 0.01, 10_000) for each in neighbours)
    assert taken <= limits.ALL_STRANGERS_BURST + limits.ALL_STRANGERS_PER_SECOND + 1


LARGE = bytes([0x81]) + bytes(300_000)


def test_large_messages_of_invented_authors_are_limited_by_their_bytes(bench):
    neighbours = [MALLORY, *(f"neighbour-{number}" for number in range(10))]
    bench.connected.update(neighbours)
    taken = [
        sum(bench.budgets.takes_broadcast(f"invented-{number}", each, LARGE) for number in range(100))
        for each in neighbours
    ]
    assert taken[0] == limits.STRANGER_BYTE_BURST // len(LARGE)
    assert sum(taken) == limits.ALL_STRANGER_BYTE_BURST // len(LARGE)
    assert bench.budgets.offences.of(MALLORY)["strangers"] == 100 - taken[0]
    assert bench.cut_off == []
    bench.now += 10
    assert bench.budgets.takes_broadcast("invented", MALLORY, LARGE)


def test_a_newcomer_is_limited_by_its_bytes(bench):
    most = limits.NEWCOMER_BYTE_BURST // len(LARGE)
    bench.budgets.answered(HONEST)
    taken = {
        peer: bench.broadcasts(peer, peer, seconds=0.1, per_second=20 * most, payload=LARGE)
        for peer in (MALLORY, HONEST)
    }
    assert most <= taken[MALLORY] <= most + 0.1 * limits.NEWCOMER_BYTES_PER_SECOND / len(LARGE) + 1
    assert taken[HONEST] == 2 * most
    assert bench.budgets.offences.of(MALLORY)["over_budget_bytes"] > 0
    assert bench.cut_off == [(MALLORY, limits.CUT_OFF)]


def test_a_stranger_is_who_is_neither_connected_nor_has_answered(bench):
    source = bench.budgets.source
    assert source("somebody", HUB) == Source(HUB, strangers=True)
    assert source("somebody", "somebody") == source("somebody", None) == Source("somebody")
    bench.budgets.answered("somebody")
    assert source("somebody", HUB) == Source("somebody")
    assert source(HONEST, HUB) == Source(HONEST)


def test_nobody_pays_for_a_message_that_only_claims_to_be_his(bench):
    for _ in range(1_000_000 // 100):
        bench.now += 0.1
        bench.budgets.admits(HONEST, MALLORY)
    assert bench.budgets.offences.of(HONEST) == {}
    assert bench.broadcasts(HONEST, HUB, 1, 10) == 10


# --- processor time -----------------------------------------------------------------------------


def test_who_took_more_than_its_share_of_processor_time_rests(bench):
    bench.budgets.spend(Source(MALLORY), limits.STRANGER_PROCESSOR_BURST + 0.2)
    assert bench.budgets.rests_for(Source(MALLORY)) == pytest.approx(0.2 / limits.STRANGER_PROCESSOR_SHARE)
    assert bench.budgets.rests_for(Source(HONEST)) == 0
    bench.budgets.answered(HONEST)
    bench.budgets.spend(Source(HONEST), limits.PROCESSOR_BURST + 0.2)
    assert bench.budgets.rests_for(Source(HONEST)) == pytest.approx(0.2 / limits.PROCESSOR_SHARE)


def test_a_newcomer_that_takes_all_the_processor_time_it_can_get_is_named_and_cut_off(bench):
    for peer in ("answered", MALLORY):
        if peer == "answered":
            bench.budgets.answered(peer)
        for _ in range(3 * limits.REST_BURST):
            bench.now += 0.005
            bench.budgets.rested(Source(peer))
    assert bench.cut_off == [(MALLORY, limits.CUT_OFF)]
    assert bench.budgets.offences.of("answered") == {"rests": 3 * limits.REST_BURST}


def test_a_neighbour_is_not_cut_off_for_what_strangers_cost(bench):
    for _ in range(3 * limits.REST_BURST):
        bench.budgets.rested(Source(HUB, strangers=True))
    assert bench.cut_off == []


# --- what is kept -------------------------------------------------------------------------------


def test_what_is_kept_of_made_up_peers_is_bounded(bench):
    for number in range(3 * limits.MAX_ACCOUNTS):
        bench.budgets.takes(f"peer-{number}", 1)
        bench.budgets.answered(f"peer-{number}")
        bench.budgets.cut_off(f"peer-{number}", "")
    assert len(bench.budgets._accounts) <= limits.MAX_ACCOUNTS
    assert len(bench.budgets._answered) <= limits.MAX_ANSWERED
    assert len(bench.budgets._sentences) <= limits.MAX_CUT_OFF
