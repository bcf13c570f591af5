from __future__ import annotations

from bacalhau_p2p.ipfs.store.quota import Quota


def test_what_exceeds_the_limit_does_not_fit():
    quota = Quota(100)
    quota.used = 60
    assert quota.fits(40)
    assert not quota.fits(41)


def test_everything_fits_without_a_limit():
    quota = Quota(None)
    quota.used = 1 << 60
    assert quota.fits(1 << 60)
    assert not quota.above_high_water
    assert quota.above_low_water <= 0


def test_collections_start_above_90_percent_and_end_at_70_percent():
    quota = Quota(1000)
    quota.used = 900
    assert not quota.above_high_water
    quota.used = 901
    assert quota.above_high_water
    assert round(quota.above_low_water) == 201
    quota.used = 600
    assert quota.above_low_water < 0
