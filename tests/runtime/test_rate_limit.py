from __future__ import annotations

from bacalhau_p2p.runtime.rate_limit import TokenBucket


def test_a_burst_passes_and_then_what_comes_back():
    bucket = TokenBucket(rate=2.0, burst=3.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(100.4)
    assert bucket.take(100.6)
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_goes_back_adds_nothing():
    bucket = TokenBucket(rate=1.0, burst=1.0)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)
    assert not bucket.take(100.5)
    assert bucket.take(101.0)


def test_an_amount_is_taken_whole_or_not_at_all():
    bucket = TokenBucket(rate=1.0, burst=10.0)
    assert bucket.take(0.0, 8)
    assert not bucket.take(0.0, 3)
    assert bucket.take(0.0, 2)
