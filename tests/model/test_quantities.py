from __future__ import annotations

import pytest

from bacalhau_p2p.model.quantities import (
    duration,
    format_bytes,
    parse_bytes,
    parse_cpu,
    parse_duration,
    parse_gpu,
    parse_seconds,
    parse_timeout,
    size_text,
)


@pytest.mark.parametrize(
    ("text", "cores"), [("2", 2), ("0.5", 0.5), (".5", 0.5), ("500m", 0.5), ("100 m", 0.1), ("0", 0)]
)
def test_cores_are_parsed(text, cores):
    assert parse_cpu(text) == cores


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("9007199254740993", 9007199254740993),
        ("1b", 1),
        ("256mb", 256_000_000),
        ("256MB", 256_000_000),
        ("100 MB", 100_000_000),
        ("1g", 1_000_000_000),
        ("1.5gb", 1_500_000_000),
        ("1Gi", 2**30),
        ("1GiB", 2**30),
        ("512KiB", 512 * 1024),
    ],
)
def test_bytes_are_parsed(text, amount):
    assert parse_bytes(text) == amount


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (90, 90),
        (1.5, 1.5),
        ("90", 90),
        ("30m", 1800),
        ("1h", 3600),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1d", 86400),
    ],
)
def test_durations_are_parsed(value, seconds):
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        *[(parse_cpu, text) for text in ("", "-1", "1e3", "lots", "1mm", "m", "10001", "٣")],
        *[(parse_bytes, text) for text in ("", "-1", "1ib", "1zb", "gb", "2Ei", "1e9", "nan")],
        *[(parse_gpu, text) for text in ("", "-1", "1.0", "1025", "²", "9" * 5000)],
        *[
            (parse_duration, value)
            for value in ("", "1y", "h", "-1", -1, "nan", "inf", "1_0", 1e12, 10**400, True, None)
        ],
        *[(parse_timeout, value) for value in ("1y", -1, "nan", "inf", float("inf"), 10**400, True, None)],
    ],
)
def test_anything_else_is_rejected(parse, value):
    with pytest.raises(ValueError, match=r"\w"):
        parse(value)


@pytest.mark.parametrize("value", [1e12, 10**12, "1000d", "366d"])
def test_a_timeout_beyond_a_year_means_a_year(value):
    assert parse_timeout(value) == 366 * 86400
    assert parse_seconds(value) >= 366 * 86400


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1500, "1.5 kB"),
        (99_960, "100 kB"),
        (999_400, "999 kB"),
        (999_960, "1 MB"),
        (12 * 10**9, "12 GB"),
        (12_345_678_901, "12.3 GB"),
        (2**60, "1.2 EB"),
        (10**21, "1000 EB"),
    ],
)
def test_bytes_are_formatted_for_people(amount, text):
    assert format_bytes(amount) == text


@pytest.mark.parametrize("parse", [parse_cpu, parse_bytes, parse_duration, parse_gpu])
@pytest.mark.parametrize("text", ["1" * 1_000_000 + "x", "1h" * 500_000, " " * 1_000_000, "9" * 65])
def test_the_length_of_an_amount_is_checked_before_its_form(parse, text):
    """Matching a pattern against 20,000 digits froze every node of the network for 14 seconds."""
    with pytest.raises(ValueError, match="at most 64 characters"):
        parse(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (5 * 10**15, "5000.0 TB"),
        (None, "?"),
    ],
)
def test_sizes_have_a_unit(size, text):
    assert size_text(size) == text


def test_durations_name_their_two_largest_units():
    assert [duration(seconds) for seconds in (-1, 0.23, 9.9, 59.9, 200, 7260, 190_000)] == [
        "0.0 s", "0.2 s", "9.9 s", "59 s", "3 min 20 s", "2 h 1 min", "2 d 4 h",
    ]  # fmt: skip
