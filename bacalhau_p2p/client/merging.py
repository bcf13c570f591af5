"""Merges the results of several executions by name into one folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Self

from bacalhau_p2p.errors import ContentError
from bacalhau_p2p.ipfs.files.dag_writer import CONTENT
from bacalhau_p2p.ipfs.files.staging import StagingFolder, write_errors
from bacalhau_p2p.model.fields import RESERVED_RESULTS

_PARTS = "parts"


class MergedResults:
    """One folder with the outputs of several results, as a context manager.

    Write each result to `place(name)`, then call `finish`. `stdout`, `stderr` and `exitCode` of each go to a
    folder with its name, everything else where it would be without the others. Until `finish` all of it is
    in a hidden folder beside the target; on exit nothing is left but what `finish` has put in place.
    """

    def __init__(self, target: Path) -> None:
        """`target` may be a folder in use. Its parent must exist. Raises ContentError."""
        self._target = target
        self._staging = StagingFolder(target, "join")
        self._owners: dict[Path, str] = {}
        """Which result each path is from, of what is no folder."""
        self._clashes = 0
        self._first_clash = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._staging.close()

    def place(self, name: str) -> Path:
        """The path to which the result of this name is to be written; nothing is there yet."""
        with write_errors(self._target):
            (self._staging.path / _PARTS).mkdir(exist_ok=True)
        return self._staging.path / _PARTS / name

    def finish(self) -> None:
        """Merge what was written, and put it in place.

        Raises ContentError when two results have the same path, or one of them is in the target already; then
        nothing is written.
        """
        merged = self._staging.path / CONTENT
        with write_errors(self._target):
            merged.mkdir()
            parts = sorted((self._staging.path / _PARTS).iterdir())
            for part in parts:  # first of all: what another result calls so must not stand for it, as a link
                if any(_kind(part / name) for name in RESERVED_RESULTS):
                    (merged / part.name).mkdir()
            for part in parts:
                for entry in sorted(part.iterdir()):
                    if entry.name in RESERVED_RESULTS:
                        self._move(entry, merged / part.name / entry.name, part.name)
                    else:
                        self._move(entry, merged / entry.name, part.name)
        if self._clashes:
            more = f" ({self._clashes} such paths)" if self._clashes > 1 else ""
            raise ContentError(
                f"cannot merge: {self._first_clash}{more}; without --merge each has its folder"
            )
        self._staging.install()

    def _move(self, source: Path, target: Path, owner: str) -> None:
        """Move an entry of a result. A folder that is there already is merged; anything else is a clash."""
        new, old = _kind(source), _kind(target)
        if new == stat.S_IFDIR and old in (None, stat.S_IFDIR):
            target.mkdir(exist_ok=True)
            for entry in sorted(source.iterdir()):
                self._move(entry, target / entry.name, owner)
        elif old is None:
            source.rename(target)
            self._owners[target] = owner
        else:
            self._clashes += 1
            if not self._first_clash:
                other = self._owners.get(target) or self._owner_below(target)
                path = target.relative_to(self._staging.path / CONTENT)
                self._first_clash = f"{other} and {owner} both have {path}"

    def _owner_below(self, folder: Path) -> str:
        return next((owner for path, owner in self._owners.items() if folder in path.parents), "another")


def _kind(path: Path) -> int | None:
    """S_IFDIR, S_IFREG or S_IFLNK; None when there is nothing."""
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except FileNotFoundError:
        return None
