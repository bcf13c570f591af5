from __future__ import annotations

import pytest

from bacalhau_p2p.node.info_pace import MAX_INFOS_PER_SECOND, MISSED_INTERVALS, info_interval, next_pause


@pytest.mark.parametrize("nodes", [1, 10, 12, 13, 100, 1000, 2500])
def test_all_infos_together_stay_below_the_limit_however_many_nodes_there_are(nodes):
    shortest = next_pause(info_interval(nodes), 0.0)
    assert nodes / shortest <= MAX_INFOS_PER_SECOND * 1.0001


@pytest.mark.parametrize("random", [0.0, 0.5, 1.0])
def test_the_next_info_comes_within_the_interval_that_the_last_one_names(random):
    assert 0.8 * info_interval(100) <= next_pause(info_interval(100), random) <= info_interval(100)


def test_a_small_network_repeats_its_infos_every_15_seconds_at_the_latest():
    assert info_interval(1) == info_interval(12) == 15.0


def test_a_node_that_misses_two_infos_is_not_stale():
    assert 3 * next_pause(info_interval(1000), 1.0) <= MISSED_INTERVALS * info_interval(1000)
