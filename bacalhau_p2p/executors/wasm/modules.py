"""Finds a job's modules among its inputs."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import MountedInput

CORE_MAGIC = b"\0asm\x01\0\0\0"
COMPONENT_MAGIC = b"\0asm\x0d\0\x01\0"


@dataclass(frozen=True, slots=True)
class LocatedModule:
    """A module's file, and the input that contains it."""

    wanted: str
    path: Path
    source: MountedInput

    @property
    def name(self) -> str:
        """Its file name for the guest and for messages, which is the same on every node."""
        return posixpath.basename(self.wanted.rstrip("/")) or self.wanted

    @property
    def content(self) -> str:
        """What names its bytes for good; empty if nothing does."""
        below = self.path.relative_to(self.source.path)
        return f"{self.source.content}/{below}" if self.source.content else ""

    @property
    def aliases(self) -> Sequence[str]:
        """The names under which other modules may import it: the input's alias, its target, and the file
        names of both the target and the module, each with and without `.wasm`."""
        target = self.source.target
        files = [posixpath.basename(target), self.source.name or self.path.name]
        stems = [name.removesuffix(".wasm") for name in files]
        names = (self.source.alias, target, *stems, *(f"{stem}.wasm" for stem in stems if stem))
        return list(dict.fromkeys(name for name in names if name))


def locate(wanted: str, inputs: Sequence[MountedInput]) -> LocatedModule:
    """The module that a job calls `wanted`: by the alias of an input, by its target, by a path below
    an input that is a folder, or by file name.

    Raises ExecutorError, permanent, when none or several match.
    """
    absolute = posixpath.normpath(posixpath.join("/", wanted))
    for source in inputs:
        if wanted == source.alias:
            return _only_module(wanted, source)
    for source in inputs:
        if absolute in (posixpath.normpath(source.place), posixpath.normpath(source.target)):
            return _only_module(wanted, source)
    for source in inputs:
        below = posixpath.relpath(absolute, posixpath.normpath(source.target))
        if source.path.is_dir() and not below.startswith("..") and (path := _file(source, below)):
            return LocatedModule(wanted, path, source)
    named = [source for source in inputs if wanted in (posixpath.basename(source.target), source.name)]
    if len(named) == 1:
        return _only_module(wanted, named[0])
    found = [(source, path) for source in inputs if source.path.is_dir() and (path := _file(source, wanted))]
    if len(found) == 1 and not named:
        return LocatedModule(wanted, found[0][1], found[0][0])
    if named or found:
        raise ExecutorError(f"several inputs have a module {wanted!r}: give its full path", permanent=True)
    listed = ", ".join(source.alias or source.target for source in inputs) or "none"
    raise ExecutorError(f"no input has the module {wanted!r}; inputs: {listed}", permanent=True)


def _only_module(wanted: str, source: MountedInput) -> LocatedModule:
    """The module that an input is, or the only one in its folder, whatever the name of a file that is there
    alone."""
    if not source.path.is_dir():
        return LocatedModule(wanted, source.path, source)
    files = sorted(path for path in source.path.iterdir() if _file(source, path.name))
    found = files if len(files) == 1 else [path for path in files if path.suffix == ".wasm"]
    if len(found) != 1:
        raise ExecutorError(
            f"the input {wanted!r} is a folder with {len(found)} .wasm files instead of one", permanent=True
        )
    return LocatedModule(wanted, found[0], source)


def _file(source: MountedInput, below: str) -> Path | None:
    """A regular file in an input folder. Not the target of a symlink, which may be outside."""
    path = source.path / below
    if below.startswith("/") or not path.is_file():
        return None
    return path if path.resolve() == source.path.resolve() / posixpath.normpath(below) else None


def module_hash(module: LocatedModule) -> str:
    """The module's SHA-256, as hex. Blocks as reading a file does.

    Raises ExecutorError, permanent when it is not a module that can be run here.
    """
    try:
        with module.path.open("rb") as file:
            magic = file.read(8)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ExecutorError(f"{module.name} cannot be read: {error.strerror}") from error
    if magic != COMPONENT_MAGIC and magic[:4] != CORE_MAGIC[:4]:
        raise ExecutorError(f"{module.name} is not a WebAssembly module", permanent=True)
    return digest


def is_component(module: LocatedModule) -> bool:
    """Whether this is a component, a program of WASI 0.2, and no core module. Blocks as reading a file does.

    Raises ExecutorError.
    """
    try:
        with module.path.open("rb") as file:
            return file.read(len(COMPONENT_MAGIC)) == COMPONENT_MAGIC
    except OSError as error:
        raise ExecutorError(f"{module.name} cannot be read: {error.strerror}") from error


def check_component(module: LocatedModule, *, alone: bool, entrypoint: str, deterministic: bool) -> None:
    """Raises ExecutorError, permanent, for a job in which a component cannot be the entry module."""
    problem = ""
    if not alone:
        problem = "cannot be linked with ImportModules"
    elif entrypoint != "_start":
        problem = "has no entry point but wasi:cli/run"
    elif deterministic:
        problem = (
            "has a real clock and real random bytes, so that its results cannot be compared; use the verifier"
            " noop, or build it for WASI preview 1"
        )
    if problem:
        raise ExecutorError(f"{module.name} is a component: it {problem}", permanent=True)
