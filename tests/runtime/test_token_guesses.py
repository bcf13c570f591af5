"""Guesses of the API token: an address may be wrong a few times, and nobody else pays for it."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from bacalhau_p2p.errors import ApiError
from bacalhau_p2p.runtime.token_guesses import (
    ALL_GUESS_INTERVAL,
    ALL_GUESSES_AT_ONCE,
    GUESS_INTERVAL,
    GUESSES_AT_ONCE,
    MAX_GUESSERS,
    MAX_SHOWN,
    TokenGuesses,
)

TOKEN = "secret"


class Bench:
    def __init__(self) -> None:
        self.now = 1000.0
        self.counters = Counter[str]()
        self.guesses = TokenGuesses(self.counters, lambda: self.now)
        self.number = 0

    def give(self, given: str, host: str = "192.0.2.1") -> bool | int:
        """Whether it is right, or after how many seconds to try again."""
        try:
            return self.guesses.is_right((host, 1), given, TOKEN, what="token")
        except ApiError as refusal:
            return refusal.retry_after if refusal.status == 429 else 0

    def guess(self, host: str = "192.0.2.1") -> bool | int:
        self.number += 1
        return self.give(f"guess {self.number}", host)

    def guess_all(self, host: str = "192.0.2.1") -> None:
        for _ in range(GUESSES_AT_ONCE):
            assert self.guess(host) is False


@pytest.fixture
def bench():
    return Bench()


def test_after_so_many_guesses_an_address_waits_also_with_the_right_token(bench):
    bench.guess_all()
    assert bench.guess() == bench.give(TOKEN) == GUESS_INTERVAL
    bench.now += GUESS_INTERVAL / 2
    assert bench.give(TOKEN) == GUESS_INTERVAL / 2
    bench.now += GUESS_INTERVAL / 2
    assert bench.give(TOKEN) is True
    assert bench.guess() is False
    assert bench.guess() == GUESS_INTERVAL
    bench.now += GUESSES_AT_ONCE * GUESS_INTERVAL
    bench.guess_all()
    assert bench.counters == {"wrong_tokens": 2 * GUESSES_AT_ONCE + 1, "guesses_refused": 4}


def test_no_guess_keeps_other_addresses_out(bench):
    for number in range(ALL_GUESSES_AT_ONCE // GUESSES_AT_ONCE):
        bench.guess_all(f"198.51.100.{number}")
    assert bench.give(TOKEN, "192.0.2.7") is True
    assert bench.give(TOKEN, "2001:db8::1") is True


def test_who_has_many_addresses_guesses_once_with_each_when_all_together_were_wrong_too_often(bench):
    for number in range(ALL_GUESSES_AT_ONCE):
        assert bench.guess(f"198.51.{number}.1") is False
    for number in range(ALL_GUESSES_AT_ONCE, 200):
        assert bench.guess(f"198.51.{number}.1") is False
        assert bench.guess(f"198.51.{number}.1") == min(ALL_GUESS_INTERVAL, GUESS_INTERVAL)
    bench.now += ALL_GUESS_INTERVAL
    assert bench.guess("198.51.0.1") is False
    assert bench.guess("198.51.0.1") > 0
    bench.now += ALL_GUESSES_AT_ONCE * ALL_GUESS_INTERVAL
    bench.guess_all("198.51.0.1")


def test_the_same_wrong_token_again_is_no_guess(bench):
    for _ in range(10 * GUESSES_AT_ONCE):
        assert bench.give("old token") is False
    assert bench.give(TOKEN) is True
    bench.guess_all("198.51.100.1")
    assert bench.give("old token", "198.51.100.1") > 0


def test_a_wrong_token_that_is_known_stays_wrong_while_the_address_waits(bench):
    bench.guess_all()
    assert bench.give(f"guess {bench.number}") is False
    assert bench.give("guess 1") == GUESS_INTERVAL  # long ago


def test_what_is_wrong_as_one_thing_may_be_right_as_another(bench):
    client = ("192.0.2.1", 1)
    assert not bench.guesses.is_right(client, "both", TOKEN, what="token")
    assert bench.guesses.is_right(client, "both", "both", what="cookie")


@pytest.mark.parametrize("given", ["", "\udcff", "\0", "s\u00e9cret", "x" * 100_000])
def test_any_text_may_be_given(bench, given):
    assert bench.give(given) is False


def test_addresses_of_one_network_guess_together(bench):
    for number in range(GUESSES_AT_ONCE):
        assert bench.guess(f"2001:db8::{number}") is False
    assert bench.guess("2001:db8::ffff:1") == GUESS_INTERVAL
    assert bench.guess("2001:db8:0:1::1") is False


def test_invented_addresses_take_no_memory(bench):
    for number in range(MAX_GUESSERS + 1000):
        bench.guess(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(bench.guesses._guessers) == MAX_GUESSERS
    bench.now += GUESS_INTERVAL
    bench.guesses.report()
    assert bench.guesses._guessers == {}


def lines(caplog) -> list[str]:
    taken = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return taken


def test_a_report_names_who_guessed_since_the_last_one(bench, caplog):
    caplog.set_level(logging.WARNING)
    bench.guess_all("192.0.2.1")
    bench.guess("192.0.2.1")
    bench.guess("192.0.2.2")
    bench.guesses.report()
    first, second = lines(caplog)
    assert "wrong_api_token" in first
    assert f"address='192.0.2.1' wrong={GUESSES_AT_ONCE} refused=1" in first
    assert "address='192.0.2.2' wrong=1 refused=0" in second
    bench.guesses.report()
    assert lines(caplog) == []


def test_many_addresses_do_not_fill_the_log(bench, caplog):
    caplog.set_level(logging.WARNING)
    for number in range(100):
        bench.guess(f"198.51.100.{number}")
    bench.guesses.report()
    named = lines(caplog)
    assert len(named) == MAX_SHOWN + 1
    assert f"addresses={100 - MAX_SHOWN}" in named[-1]
