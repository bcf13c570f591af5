"""Content as an argument: `Input(cid)` arrives as the path where the content is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from bacalhau_p2p.errors import InvalidValue
from bacalhau_p2p.model.fields import MAX_ENTRIES

FOLDER = "/inputs"
"""Where inputs are that have no path of their own."""


@dataclass(frozen=True, slots=True)
class Input:
    """The content of a CID, or at a path below one: a file or a folder. The function gets its path, a `Path`.

    `path` is where the job finds it, absolute; by default `/inputs/0`, `/inputs/1` and so on.
    """

    cid: str
    path: str = ""


@dataclass(slots=True)
class Placed:
    """Inputs, each with its place."""

    targets: dict[str, str] = field(default_factory=dict)
    """By path in the job, the CID."""
    _known: dict[Input, str] = field(default_factory=dict)

    def place(self, value: Any) -> Any:
        """`value` with a path in place of each `Input` in lists, tuples and dicts. Raises InvalidValue."""
        kind = type(value)
        if kind is Input:
            return PurePosixPath(self._target(value))
        if kind is list or kind is tuple:
            return kind(self.place(each) for each in value)
        if kind is dict:
            return {key: self.place(each) for key, each in value.items()}
        return value

    def _target(self, wanted: Input) -> str:
        if wanted not in self._known:
            target = wanted.path or f"{FOLDER}/{len(self._known)}"
            if self.targets.setdefault(target, wanted.cid) != wanted.cid:
                raise InvalidValue(f"two inputs have the path {target}: change one of them")
            self._known[wanted] = target
        if len(self._known) > MAX_ENTRIES:
            raise InvalidValue(
                f"more than {MAX_ENTRIES} inputs: add a folder that has them, and pass its CID"
            )
        return self._known[wanted]

    def add(self, targets: Mapping[str, str]) -> None:
        """More inputs, by path. Raises InvalidValue."""
        for target, cid in targets.items():
            self._target(Input(cid, target))
