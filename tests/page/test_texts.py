from __future__ import annotations

from markupsafe import Markup

from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.history import EventKind, HistoryEvent
from bacalhau_p2p.model.usage import Usage
from bacalhau_p2p.page import texts


def test_a_moment_is_in_utc_and_one_beyond_every_calendar_is_unknown():
    assert "2026-03-04 05:06:07" in texts.moment(1772600767.5)
    assert texts.moment(1e300) == "?"


def test_a_moment_of_a_known_day_has_no_date():
    time = 1772600767.5
    assert ">05:06:07<" in texts.moment(time, time - 3600)
    assert ">05:06:07.500<" in texts.moment(time, time - 3600, exact=True)
    assert ">2026-03-04 05:06:07<" in texts.moment(time, time - 86400)
    assert texts.moment(1e300, time) == "?"
    assert ">2026-03-04 05:06:07<" in texts.moment(time, 1e300)


def test_the_message_of_an_event_does_not_repeat_its_kind():
    def event(kind, message):
        return HistoryEvent(JobID("j"), 1, 0.0, kind, message)

    assert texts.told(event(EventKind.BID, "bids")) == ""
    assert texts.told(event(EventKind.RUNNING, "running")) == ""
    assert texts.told(event(EventKind.ACCEPTED, "accepted; preparing")) == "preparing"
    assert texts.told(event(EventKind.PROPOSED, "ran; waiting")) == "ran; waiting"


def test_ids_are_short_and_those_of_peers_differ():
    assert texts.short("17b2d7dd-4b1a-43b0-a040-7d0dc32ff716") == "17b2d7dd"
    assert (
        texts.short("12D3KooWHv4PoxE5NLFaCqdS2YEiqosyZonn9puvRLrJ3QGYgpMp") == "…J3QGYgpMp"[:1] + "3QGYgpMp"
    )


def test_a_part_of_nothing_is_no_percent():
    assert [texts.percent(1, 0), texts.percent(1, 2), texts.percent(5, 2), texts.percent(-1, 2)] == [
        0,
        50,
        100,
        0,
    ]


def test_text_of_strangers_loses_what_turns_the_direction_of_writing():
    assert texts.harmless("a\u202eb\x1b[2J\n") == "a\ufffdb\ufffd[2J\n"
    assert texts.harmless("\ud800") == "\ufffd"
    assert texts.harmless(Markup("<b>")) == Markup("<b>")
    assert texts.harmless(None) == ""
    assert texts.harmless(3) == 3


def test_usage_shows_what_was_measured():
    assert texts.usage(Usage(cpu_seconds=2.34, peak_memory=61_000_000)) == "2.3 s of CPU, 61 MB of memory"
    assert texts.usage(Usage(cpu_seconds=0.007, peak_memory=0)) == "< 0.1 s of CPU"
    assert [texts.usage(Usage()), texts.usage(None)] == ["", ""]
