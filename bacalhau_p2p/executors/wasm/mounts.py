"""Which folders a guest gets for its inputs and outputs."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import MountedInput


@dataclass(frozen=True, slots=True)
class Mounts:
    """What the guest finds where. `links` are (file, its other name), to be made before the run."""

    preopens: Sequence[tuple[str, str, bool]]
    """(folder on this machine, path inside the job, whether it may be changed)."""
    links: Sequence[tuple[str, str]]
    outputs: Sequence[str]
    """The folders on this machine that the job's user must own."""


def plan_mounts(inputs: Iterable[MountedInput], outputs: Mapping[str, Path], work: Path) -> Mounts:
    """How inputs and outputs (by path inside the job) are mounted.

    WASI has only folders. So a file is mounted by way of a read-only folder, made below `work`, that
    contains nothing but the files that belong there.
    Raises ExecutorError; permanent when two mounts need the same folder.
    """
    preopens: dict[str, tuple[str, str, bool]] = {}
    links: dict[str, str] = {}
    parents: dict[str, Path] = {}
    files = []
    for source in inputs:
        target = posixpath.normpath(source.target)
        if not source.path.exists():
            raise ExecutorError(f"input {target} does not exist any more")
        if source.path.is_dir():
            _claim(preopens, target, source.path, not source.read_only)
        else:
            files.append((source, target))
    for path, folder in outputs.items():
        _claim(preopens, posixpath.normpath(path), folder, True)
    for source, target in files:
        parent, name = posixpath.split(target)
        if parent not in parents:
            parents[parent] = work / f"files-{len(parents)}"
            _claim(preopens, parent, parents[parent], False)
        link = str(parents[parent] / name)
        if link in links:
            raise ExecutorError(f"two inputs have the target {target}", permanent=True)
        links[link] = str(source.path)
    return Mounts(
        list(preopens.values()),
        [(source, link) for link, source in links.items()],
        [str(folder) for folder in outputs.values()],
    )


def _claim(preopens: dict[str, tuple[str, str, bool]], target: str, folder: Path, mutable: bool) -> None:
    if target in preopens:
        raise ExecutorError(
            f"two inputs or result paths need the folder {target}; WebAssembly can mount only one there",
            permanent=True,
        )
    preopens[target] = (str(folder), target, mutable)
