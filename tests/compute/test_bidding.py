"""How eagerly a node bids."""

from __future__ import annotations

from bacalhau_p2p.compute.bidding import bid_delay, no_disk_for_inputs


def test_a_busy_node_waits_longer_before_it_bids():
    busy, idle = (bid_delay(load=load, random=0.5) for load in (1, 0))
    assert busy > idle > 0


def test_a_shortage_of_disk_names_what_the_inputs_and_the_job_need():
    assert no_disk_for_inputs(inputs=4 * 10**9, job=0, free=10**9) == "inputs need 4 GB of disk; 1 GB is free"
    assert (
        no_disk_for_inputs(inputs=4 * 10**9, job=2 * 10**9, free=10**9)
        == "inputs need 4 GB of disk and the job another 2 GB; 1 GB is free"
    )
