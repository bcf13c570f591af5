from __future__ import annotations

import pytest

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.storage.local.allowed_paths import AllowedPath


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/data", "/data", True),
        ("/data", "/data/a", False),
        ("/data", "/data2", False),
        ("/data/*", "/data/a", True),
        ("/data/*", "/data/a/b", False),
        ("/data/*", "/data", False),
        ("/data/**", "/data", True),
        ("/data/**", "/data/a/b", True),
        ("/data/**/c", "/data/c", True),
        ("/data/**/c", "/data/a/b/c", True),
        ("/data/**/c", "/data/abc", False),
        ("/**", "/anything/at/all", True),
        ("/data/a?c", "/data/abc", True),
        ("/data/a?c", "/data/a/c", False),
        ("/data/[ab]", "/data/b", True),
        ("/data/[!ab]", "/data/b", False),
        ("/data/[a-c]x", "/data/bx", True),
        ("/data/{x,yz}", "/data/yz", True),
        ("/data/{x,yz}", "/data/y", False),
        ("/data.d", "/dataxd", False),
        ("/data/", "/data", True),
    ],
)
def test_patterns_match_as_in_bacalhau(pattern, path, matches):
    assert AllowedPath.parse(pattern).matches(path) is matches


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("/data", AllowedPath("/data", False)),
        ("/data:ro", AllowedPath("/data", False)),
        ("/data/**:rw", AllowedPath("/data/**", True)),
        ("/da:ta", AllowedPath("/da:ta", False)),
    ],
)
def test_the_suffix_decides_whether_jobs_may_write(text, allowed):
    assert AllowedPath.parse(text) == allowed


@pytest.mark.parametrize("text", ["", "data", "*", "/data/../etc", "/data/[z-a]"])
def test_a_malformed_pattern_is_a_settings_error(text):
    with pytest.raises(SettingsError, match="allowed local path"):
        AllowedPath.parse(text)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/*a*b*", "/xaxbx", True),
        ("/*a*b*", "/ba", False),
        ("/*ab*b", "/abb", True),
        ("/*ab*b", "/ab", False),
        ("/*?b", "/ab", True),
        ("/*a?*a", "/aaxa", True),
        ("/*[*]*x", "/a*bx", True),
        ("/*[*]*x", "/abx", False),
        ("/**a", "/xa", True),
    ],
)
def test_several_wildcards_in_one_name_match_as_one_expects(pattern, path, matches):
    assert AllowedPath.parse(pattern).matches(path) is matches


def test_a_name_that_nearly_matches_many_wildcards_is_refused_at_once():
    # Backtracking over twelve of them would take longer than the age of the universe.
    assert not AllowedPath.parse("/" + "*a" * 12 + "*b").matches("/" + "a" * 255)
