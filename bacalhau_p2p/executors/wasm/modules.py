"""Where a job's modules are among its inputs, and what its guest finds at which path."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import MountedInput

CORE_MAGIC = b"\0asm\x01\0\0\0"
COMPONENT_MAGIC = b"\0asm\x0d\0\x01\0"


@dataclass(frozen=True, slots=True)
class Located:
    """A module's file, and the input that it came with."""

    wanted: str
    path: Path
    source: MountedInput

    @property
    def name(self) -> str:
        """Its file name for the guest and for messages: the same on every node."""
        return posixpath.basename(self.wanted.rstrip("/")) or self.wanted

    @property
    def aliases(self) -> Sequence[str]:
        """The names under which other modules may import it: the input's alias, its target, and the
        target's file name without `.wasm`."""
        target = self.source.target
        names = (self.source.alias, target, posixpath.basename(target).removesuffix(".wasm"))
        return list(dict.fromkeys(name for name in names if name))


def locate(wanted: str, inputs: Sequence[MountedInput]) -> Located:
    """The module that a job calls `wanted`: by the alias of an input, by its target, by a path beneath
    an input that is a folder, or by file name.

    Raises ExecutorError, permanent, when there is none or there are several.
    """
    absolute = posixpath.normpath(posixpath.join("/", wanted))
    for source in inputs:
        if wanted == source.alias:
            return _in(wanted, source)
    for source in inputs:
        if absolute == posixpath.normpath(source.target):
            return _in(wanted, source)
    for source in inputs:
        beneath = posixpath.relpath(absolute, posixpath.normpath(source.target))
        if source.path.is_dir() and not beneath.startswith("..") and (path := _file(source, beneath)):
            return Located(wanted, path, source)
    named = [source for source in inputs if posixpath.basename(source.target) == wanted]
    if len(named) == 1:
        return _in(wanted, named[0])
    held = [(source, path) for source in inputs if source.path.is_dir() and (path := _file(source, wanted))]
    if len(held) == 1 and not named:
        return Located(wanted, held[0][1], held[0][0])
    if named or held:
        raise ExecutorError(f"several inputs have a module {wanted!r}; give its whole path", permanent=True)
    there = ", ".join(source.alias or source.target for source in inputs) or "none"
    raise ExecutorError(f"no input is the module {wanted!r}; the inputs are: {there}", permanent=True)


def _in(wanted: str, source: MountedInput) -> Located:
    """The module that an input is, or that is the only one in it."""
    if not source.path.is_dir():
        return Located(wanted, source.path, source)
    found = sorted(
        path for path in source.path.iterdir() if path.suffix == ".wasm" and _file(source, path.name)
    )
    if len(found) != 1:
        raise ExecutorError(
            f"the input {wanted!r} is a folder with {len(found)} .wasm files; there must be one",
            permanent=True,
        )
    return Located(wanted, found[0], source)


def _file(source: MountedInput, beneath: str) -> Path | None:
    """A regular file in an input folder; nothing that a symlink leads to, for that may be outside."""
    path = source.path / beneath
    if beneath.startswith("/") or not path.is_file():
        return None
    return path if path.resolve() == source.path.resolve() / posixpath.normpath(beneath) else None


def read_module(located: Located) -> str:
    """The module's SHA-256, as hex. Blocks as reading a file does.

    Raises ExecutorError, permanent when it is not a module that can be run here.
    """
    try:
        with located.path.open("rb") as file:
            magic = file.read(8)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ExecutorError(f"{located.name} cannot be read: {error.strerror}") from error
    if magic == COMPONENT_MAGIC:
        raise ExecutorError(
            f"{located.name} is a WebAssembly component; only core modules (WASI preview 1) can be run",
            permanent=True,
        )
    if magic[:4] != CORE_MAGIC[:4]:
        raise ExecutorError(f"{located.name} is not a WebAssembly module", permanent=True)
    return digest


@dataclass(frozen=True, slots=True)
class Mounts:
    """What the guest finds where. `links` are (file, its other name): to be made before the run."""

    preopens: Sequence[tuple[str, str, bool]]
    """(folder on this machine, path inside the job, whether it may be changed)."""
    links: Sequence[tuple[str, str]]


def mounts(inputs: Iterable[MountedInput], outputs: Mapping[str, Path], work: Path) -> Mounts:
    """How inputs and outputs (by path inside the job) are shown to a guest.

    WASI knows folders only. So a file is shown by way of a folder of our own that has nothing in it
    but the files that belong there, and can never be changed.
    Raises ExecutorError; permanent when two things want the same folder.
    """
    preopens: dict[str, tuple[str, str, bool]] = {}
    links: dict[str, str] = {}
    homes: dict[str, Path] = {}
    files = []
    for source in inputs:
        target = posixpath.normpath(source.target)
        if not source.path.exists():
            raise ExecutorError(f"the input for {target} is not there any more")
        if source.path.is_dir():
            _claim(preopens, target, source.path, not source.read_only)
        else:
            files.append((source, target))
    for path, folder in outputs.items():
        _claim(preopens, posixpath.normpath(path), folder, True)
    for source, target in files:
        parent, name = posixpath.split(target)
        if parent not in homes:
            homes[parent] = work / f"files-{len(homes)}"
            _claim(preopens, parent, homes[parent], False)
        link = str(homes[parent] / name)
        if link in links:
            raise ExecutorError(f"two inputs have the target {target}", permanent=True)
        links[link] = str(source.path)
    return Mounts(list(preopens.values()), [(source, link) for link, source in links.items()])


def _claim(preopens: dict[str, tuple[str, str, bool]], target: str, folder: Path, mutable: bool) -> None:
    if target in preopens:
        raise ExecutorError(
            f"two inputs or results want the folder {target}; a WebAssembly job can be given only one",
            permanent=True,
        )
    preopens[target] = (str(folder), target, mutable)
