"""How long a round of bids stays open, after how long answers took."""

from __future__ import annotations

import pytest

from bacalhau_p2p.requester.pace import FIRST_WINDOW, LONGEST_FIRST_WINDOW, LONGEST_WINDOW, Pace


def test_the_first_window_is_between_its_limits_and_follows_the_answers():
    pace = Pace()
    assert pace.first_window == FIRST_WINDOW
    for _ in range(100):
        pace.answered_after(0.02)
    assert pace.first_window == FIRST_WINDOW
    pace.answered_after(0.3)  # once is chance
    assert pace.first_window < 0.5
    for _ in range(100):
        pace.answered_after(0.6)
    assert pace.first_window == pytest.approx(0.6, abs=0.01)
    for _ in range(3):
        pace.nobody_answered()
    assert pace.first_window == LONGEST_FIRST_WINDOW
    pace.answered_after(0.6)
    assert pace.first_window == pytest.approx(0.6, abs=0.01)
    for _ in range(100):
        pace.answered_after(3600.0)
    assert pace.first_window == LONGEST_FIRST_WINDOW
    for _ in range(100):
        pace.answered_after(0.02)
    assert pace.first_window == FIRST_WINDOW


def test_the_window_doubles_with_each_round_up_to_a_limit():
    pace = Pace()
    assert [pace.window(number) for number in (1, 2, 3)] == [
        FIRST_WINDOW,
        2 * FIRST_WINDOW,
        4 * FIRST_WINDOW,
    ]
    assert pace.window(100) == LONGEST_WINDOW
