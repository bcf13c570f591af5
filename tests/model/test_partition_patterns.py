from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from bacalhau_p2p.model.partition_patterns import PatternText, compiled


@pytest.mark.parametrize(
    "pattern",
    [
        r"^([^/]+)/",
        r"(?P<year>\d{4})/(?<month>\d{2})/(?:\d{2})/(.+)",
        r"(?:[a-z]{1,63}\.)+[a-z]{2,63}",
        r"(.{1,255})/(.{1,255})/(.{1,255})",
        r"\(?\d{3}\)?-\p{L}{2}[[:alpha:]]+",
        r"(?i)\.csv$|(?i-s:b)",
        "",
    ],
)
def test_patterns_of_go_are_accepted(pattern):
    assert TypeAdapter(PatternText).validate_python(pattern) == pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "(?:(?:(?:a{3000}){3000}){3000})",  # 31 characters: more than 6 GB
        "a{100000000}",
        "(?:" * 30 + "a" + ")+" * 30,  # each doubles what it repeats
        "(?:" * 20 + "a" + "{1,100})" * 20,
        "(?:((a{40}){40})x[)]){40}",
        "(?:" + "(?:ab){10}" * 20 + "){500,}",
    ],
)
def test_a_pattern_that_would_take_much_memory_is_not_compiled(pattern):
    with pytest.raises(ValueError, match="repeats too much"):
        compiled(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?R)",  # 300 MB in half a second
        "(a)(?1)",
        "(?&name)",
        "(?x)a {9} # a comment (",
        "(?#comment)a",
        "(?V1)[a--b]",
        "(?<=a)b",
        "(?:ab){e<=3}",
        "(?:ab){1<=e<3}",
    ],
)
def test_what_go_does_not_have_is_refused(pattern):
    with pytest.raises(ValueError, match="regular expressions of Go"):
        compiled(pattern)


@pytest.mark.parametrize("pattern", ["(", "a{2}{3}", "[z-a]", r"\p{foo=bar}", "a{99999999999999999999}"])
def test_what_is_no_pattern_is_a_fault(pattern):
    with pytest.raises(ValidationError):
        TypeAdapter(PatternText).validate_python(pattern)
