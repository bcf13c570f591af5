"""The patterns that divide inputs: regular expressions as Go reads them, as in Bacalhau, within limits.

The engine that matches them here can do more than Go's: it calls itself, looks around and allows for errors,
some of which takes memory without bound. And it writes out what a pattern repeats, so that 31 characters can
take all the memory of a node before anything is matched. So a pattern is looked at before it is compiled.
"""

from __future__ import annotations

import re
from typing import Annotated

import regex
from pydantic import AfterValidator

from bacalhau_p2p.model.fields import Line

MAX_PIECES = 20_000
"""Characters of a pattern when what must be there several times is written out: compiled, some 10 MB."""

_ESCAPED = re.compile(r"\\(?:[pPN]\{[^{}]*\}|.)", re.DOTALL)
_GROUP_OF_ANOTHER_KIND = r"\(\?(?!:|P?<[A-Za-z_]|[imsU]*(?:-[imsU]+)?[:)])"
_ALLOWED_ERRORS = r"\{[\d\s]*(?:<=?\s*)?\d*[eids][\s<=,:+}]"
_NOT_OF_GO = re.compile(f"{_GROUP_OF_ANOTHER_KIND}|{_ALLOWED_ERRORS}")
_REPEATED = re.compile(r"([)}*+?]?)(?:([*+?])|\{(\d*)(,?)(\d*)\})")


def compiled(pattern: str) -> regex.Pattern[str]:
    """A pattern, ready to match. Raises ValueError with what is wrong with it. Keeps nothing of it."""
    plain = _ESCAPED.sub("e", pattern)
    if _NOT_OF_GO.search(plain):
        raise ValueError("has what regular expressions of Go do not have: after (? or in braces")
    if _pieces(plain) > MAX_PIECES:
        raise ValueError("repeats too much: repetitions inside each other multiply")
    try:
        return regex.compile(pattern, cache_pattern=False)
    except (regex.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None


def _pieces(plain: str) -> int:
    """The characters of a pattern without escapes when what it repeats is written out, or more.

    What follows a group may repeat all others of its kind, whatever the groups; of other repetitions only
    one can be inside all of these.
    """
    groups = alone = 1
    for before, sign, low, comma, high in _REPEATED.findall(plain):
        copies = (2 if sign == "+" else 1) if sign else _copies(low, comma, high)
        if before:
            groups *= copies
        else:
            alone = max(alone, copies)
    return len(plain) * groups * alone


def _copies(low: str, comma: str, high: str) -> int:
    """How often `{low,high}` has what it repeats written out."""
    least = int(low or 0)
    return max(1, least + (bool(comma) and low != high))


def _check(text: str) -> str:
    if text:
        compiled(text)
    return text


PatternText = Annotated[Line, AfterValidator(_check)]
"""A regular expression that may be compiled, or nothing."""
