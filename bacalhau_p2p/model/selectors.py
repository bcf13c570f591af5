"""Label selectors of Kubernetes as text: `env=prod,tier!=web,zone in (a,b),gpu,!slow,cores>4`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

MAX_SELECTOR = 4096
"""Characters of a selector."""

_WORD = r"[^\s!=<>,()]+"
_Read = Callable[[re.Match[str]], tuple[str, str, list[str]]]
_REQUIREMENTS: tuple[tuple[re.Pattern[str], _Read], ...] = (
    (re.compile(rf"!\s*({_WORD})"), lambda m: (m[1], "!", [])),
    (re.compile(rf"({_WORD})"), lambda m: (m[1], "exists", [])),
    (re.compile(rf"({_WORD})\s*(==|!=|=|>|<)\s*((?:{_WORD})?)"), lambda m: (m[1], m[2], [m[3]])),
    (
        re.compile(rf"({_WORD})\s+(in|notin)\s*\(([^()]*)\)"),
        lambda m: (m[1], m[2], [value.strip() for value in m[3].split(",")]),
    ),
)


def parse_selector(text: str) -> list[dict[str, Any]]:
    """The constraints that a selector means, as `{"Key", "Operator", "Values"}`; all of them have to hold.

    Raises ValueError for what is no selector.
    """
    if len(text) > MAX_SELECTOR:
        raise ValueError(f"a selector must have at most {MAX_SELECTOR} characters")
    return [_constraint(part.strip()) for part in _parts(text) if part.strip()]


def _constraint(part: str) -> dict[str, Any]:
    for pattern, read in _REQUIREMENTS:
        if (match := pattern.fullmatch(part)) is not None:
            key, operator, values = read(match)
            return {"Key": key, "Operator": operator, "Values": values}
    raise ValueError(f"{part!r} is no selector; use KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY or !KEY")


def _parts(text: str) -> Iterator[str]:
    """What is between the commas outside of parentheses."""
    start = depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth <= 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]
