from __future__ import annotations

from bacalhau_p2p.runtime.rate_limit import RateLimits, TokenBucket


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


def test_a_debt_is_paid_off_before_anything_is_taken_and_is_bounded():
    bucket = TokenBucket(rate=1.0, burst=4.0)
    bucket.spend(0.0, 6)
    assert bucket.debt_lasts(0.0) == 2.0
    assert not bucket.take(2.5, 1)
    assert bucket.debt_lasts(2.5) == 0.0
    assert bucket.take(3.0, 1)
    bucket.spend(3.0, 1_000)
    assert bucket.debt_lasts(3.0) == 4.0


def test_each_key_has_a_bucket_of_its_own_until_it_is_forgotten():
    limits = RateLimits[str](rate=1.0, burst=1.0)
    assert limits.take("alice", now=0)
    assert not limits.take("alice", now=0)
    assert limits.take("bob", now=0)
    limits.forget("alice")
    assert limits.take("alice", now=0)


def test_made_up_keys_do_not_pile_up():
    limits = RateLimits[int](rate=1.0, burst=1.0, max_keys=10)
    for key in range(1000):
        limits.take(key, now=0)
    assert len(limits._buckets) <= 10
