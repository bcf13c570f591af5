"""How a divided input is shared out: the partition of each of its files, by its path. As Bacalhau does it.

Each file has a key: its path, or a part of it. Files with equal keys are in the same partition. Those that
have none, because a pattern or a date does not match, are in the first one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from time import thread_time
from typing import Annotated, Literal, Self

import regex
from pydantic import AfterValidator, Field, model_validator

from bacalhau_p2p.model.base import ClosedModel
from bacalhau_p2p.model.fields import MAX_COUNT, Line
from bacalhau_p2p.model.partition_patterns import PatternText, compiled

MATCH_TIMEOUT = 0.5
"""Seconds for one path and a pattern; a pattern that takes longer is a fault of the job."""
DIVIDE_TIMEOUT = 60.0
"""Seconds of processor time for all paths of an input. A million paths of usual length take some 10."""
ESTIMATE_TIMEOUT = 1.0
"""The same before a bid, to find out how large the largest part is: anybody may announce a job."""
_FNV_OFFSET, _FNV_PRIME = 2166136261, 16777619
_SEPARATOR = "\x1f"
"""Between the groups of a pattern, as in Bacalhau."""

_DATE_PARTS = {
    "2006": (r"(?P<year>\d{4})", "%Y"),
    "January": ("(?P<long_month>[A-Z][a-z]{2,8})", "%B"),
    "Jan": ("(?P<month_name>[A-Z][a-z]{2})", "%b"),
    "01": (r"(?P<month>\d{2})", "%m"),
    "02": (r"(?P<day>\d{2})", "%d"),
    "15": (r"(?P<hour>\d{2})", "%H"),
    "04": (r"(?P<minute>\d{2})", "%M"),
    "05": (r"(?P<second>\d{2})", "%S"),
    "06": (r"(?P<short_year>\d{2})", "%y"),
}
"""Parts of a date as Go writes them: a pattern for each, and what Python calls it."""
_DATE_PART = re.compile("|".join(_DATE_PARTS))


class InvalidPattern(Exception):
    """It takes too long to find out in which parts of a divided input its files are."""


class TooManyPaths(InvalidPattern):
    """All paths together take too long, and not the pattern alone."""


def _date_format(text: str) -> str:
    parts = _DATE_PART.findall(text)
    if text and (not parts or len(set(parts)) != len(parts)):
        raise ValueError("must be a date as Go writes it, such as 2006-01-02, with each part once")
    return text


class PartitionSpec(ClosedModel):
    """How an input is divided among the executions of its job. `Index` and `Count` choose one part; a node
    adds them where the job has none."""

    type: Literal["", "none", "object", "regex", "substring", "date"] = ""
    pattern: PatternText = ""
    start_index: Annotated[int, Field(ge=0, le=4096)] = 0
    end_index: Annotated[int, Field(ge=0, le=4096)] = 0
    date_format: Annotated[Line, AfterValidator(_date_format)] = ""
    index: Annotated[int, Field(ge=0, lt=MAX_COUNT)] = 0
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 1

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type == "regex" and not self.pattern:
            raise ValueError("Pattern: missing, and the Type is regex")
        if self.type == "substring" and self.end_index <= self.start_index:
            raise ValueError("EndIndex: must be greater than StartIndex")
        if self.type == "date" and not self.date_format:
            raise ValueError("DateFormat: missing, and the Type is date")
        if self.index >= self.count:
            raise ValueError(f"Index: must be less than Count, which is {self.count}")
        return self

    @property
    def divides(self) -> bool:
        return self.type not in ("", "none") and self.count > 1


class Chooser:
    """Chooses the files of one part, path by path. Belongs into a thread: a pattern may take long, and there
    may be a million paths."""

    def __init__(
        self,
        spec: PartitionSpec,
        clock: Callable[[], float] = thread_time,
        *,
        timeout: float = DIVIDE_TIMEOUT,
    ) -> None:
        """`clock`: seconds of processor time that this thread has used. `timeout`: such seconds for all paths
        together."""
        self._spec = spec
        self._clock = clock
        self._timeout = self._left = timeout
        self._pattern = compiled(spec.pattern) if spec.type == "regex" and spec.divides else None

    def has(self, path: str, *, whole: str | None = None) -> bool:
        """Whether the file at this path below the input is in the part. `whole` is the key of a file if no
        part of its path is, by default the path. Raises InvalidPattern."""
        return not self._spec.divides or self.index_of(path, whole=whole) == self._spec.index

    def index_of(self, path: str, *, whole: str | None = None) -> int:
        """In which part of a divided input a file is, as for `has`. Raises InvalidPattern."""
        spec = self._spec
        began = self._clock()
        key = (path if whole is None else whole) if spec.type == "object" else self._key(path)
        index = 0 if key is None else fnv32a(key) % spec.count
        self._left -= self._clock() - began
        if self._left < 0:
            raise TooManyPaths(f"to compare all its paths takes more than {self._timeout:g} s")
        return index

    def largest(self, files: Iterable[tuple[str, int]]) -> int:
        """Bytes of the largest part, of files with these paths and sizes. Raises InvalidPattern."""
        sizes = Counter[int]()
        for path, size in files:
            sizes[self.index_of(path)] += size
        return max(sizes.values(), default=0)

    def _key(self, path: str) -> str | None:
        spec = self._spec
        if spec.type == "substring":
            return path[spec.start_index : spec.end_index] if len(path) >= spec.end_index else None
        if self._pattern is None:
            return _date_in(path, spec.date_format)
        try:
            found = self._pattern.search(path, timeout=MATCH_TIMEOUT)
        except TimeoutError:
            raise InvalidPattern(
                f"the Pattern takes more than {MATCH_TIMEOUT:g} s to match {path!r}"
            ) from None
        return None if found is None else _key_of(found)


def _key_of(found: regex.Match[str]) -> str | None:
    """The groups of a match, or all of it if it has none; None for an empty one."""
    if not found.group():
        return None
    groups = [group for group in found.groups() if group]
    return _SEPARATOR.join(groups) if groups else str(found.group())


def fnv32a(text: str) -> int:
    """The 32-bit FNV-1a hash of a text in UTF-8."""
    value = _FNV_OFFSET
    for byte in text.encode("utf-8", "surrogateescape"):
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return value


def _date_in(path: str, layout: str) -> str | None:
    """The beginning of a path, if it is a date of this layout."""
    text = path[: len(layout)]
    pattern = "".join(_DATE_PARTS[p][0] if p in _DATE_PARTS else re.escape(p) for p in _split(layout))
    if re.fullmatch(pattern, text, re.ASCII) is None:
        return None
    shape = "".join(_DATE_PARTS[p][1] if p in _DATE_PARTS else p.replace("%", "%%") for p in _split(layout))
    try:
        datetime.strptime(text, shape)
    except ValueError:
        return None
    return text


def _split(layout: str) -> list[str]:
    return [part for part in re.split(f"({_DATE_PART.pattern})", layout) if part]
