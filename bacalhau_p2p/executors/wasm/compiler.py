"""Compiles the modules of jobs, each once, and one large and one small at a time, in processes of their own.

How long a compiler runs and how much memory it takes depends on the module, which is a stranger's. So its
memory and its time are limited. A module over a limit fails permanently, and its failure is remembered:
it is not compiled a second time.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import signal
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.wasm.compiled_cache import HEADER, CompiledCache, CompiledModule
from bacalhau_p2p.executors.wasm.failure import run_failed, used_up_cpu
from bacalhau_p2p.executors.wasm.modules import LocatedModule, is_component, module_hash
from bacalhau_p2p.executors.wasm.processes import Processes
from bacalhau_p2p.model.quantities import format_bytes

_THREAD_SIZE = 256 * 1024
"""Bytes of a module from which hashing it would delay everything else on the node without a thread."""
_KNOWN_HASHES = 256
"""Modules whose hash is remembered."""
_KNOWN_FAILURES = 256
"""Modules of which it is remembered that they cannot be compiled."""

MODULE_SIZE_LIMIT = 64 * 1024**2
"""Bytes of a module; programs of the compilers that we know have at most 30 MB."""
COMPILE_MEMORY = 1024**3
"""Bytes of memory for the compiler; a module of 26 MB needs about 400 MB."""
SMALL_MODULE = 128 * 1024
"""Bytes up to which a module is compiled beside larger ones, so that it does not wait for them."""
SMALL_MEMORY = 256 * 1024**2
"""Bytes of memory for that; a module that needs more is compiled again, as a larger one."""
SMALL_TIME = 2.0
"""CPU seconds likewise; 0.2 are needed."""
COMPILED_SIZE_LIMIT = 512 * 1024**2
"""Bytes of compiled code."""
COMPILE_TIME = 10.0
"""CPU seconds for compiling any module."""
COMPILE_TIME_PER_MB = 5.0
"""More CPU seconds for each MB of the module; about 1 is needed."""
COMPILE_NICENESS = 10
"""Compiling a large module comes after everything else that the node does."""
_OUT_OF_MEMORY = frozenset({-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGXFSZ})
"""How a compiler ends that gets no more memory: it aborts, or its stack cannot grow."""
LOOK_AGAIN = 0.05
"""Seconds between two looks whether another node has compiled a module."""
WALL_CLOCK_FACTOR = 6
"""A compiler is killed when it takes this many times longer than its CPU seconds: it waits for the CPU."""


class ModuleCompiler:
    """Keeps compiled modules in a cache on disk. `processes` runs the compiler."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._cache = CompiledCache(folder)
        self._processes = processes
        self._hashes: dict[tuple[int | str, ...], str] = {}
        self._failures: dict[str, ExecutorError] = {}
        self._compiling = trio.Lock()  # one compiler at a time,
        self._compiling_small = trio.Lock()  # and one for small modules
        self._compiler = f"wasmtime-{version('wasmtime')}-{platform.machine()}-{_processor_features()}"

    def open(self) -> None:
        """Raises OSError when the cache cannot be used."""
        self._cache.open()

    def discard(self, key: str) -> None:
        """Forget a compiled module that turned out to be unusable."""
        self._cache.discard(key)

    async def describe(
        self,
        module: LocatedModule,
        *,
        deterministic: bool,
        note: Callable[[str], None] = lambda doing: None,
    ) -> dict[str, Any]:
        """What a job's process needs to know of a module, which is compiled now unless it was before.

        `note` is told when that begins and, with an empty text, when it has ended.
        Raises ExecutorError. Cancelled: the compiling process has ended.
        """
        sha256 = await self._hash(module)
        key = f"{sha256}-{self._compiler}-{'deterministic' if deterministic else 'plain'}"
        try:
            self._cache.open()
            if (compiled := self._cache.get(key)) is None:
                compiled = await self._compiled_now(_Request(module, sha256, key, deterministic), note)
        except ExecutorError:
            self._hashes = {known: each for known, each in self._hashes.items() if each != sha256}
            raise
        except OSError as error:
            raise ExecutorError(f"compiling {module.name} failed: {error}") from error
        return {
            "name": module.name,
            "aliases": list(module.aliases),
            "component": is_component(module),
            "path": str(module.path),
            "sha256": sha256,
            "key": key,
            "compiled": str(compiled.path),
            "skip": HEADER,
            "compiled_sha256": compiled.sha256,
        }

    async def _hash(self, module: LocatedModule) -> str:
        """The module's SHA-256, computed again only when the file may have changed.

        That of verified content cannot. A file on disk that is another one nevertheless is never run: the
        compiler compares the hash, and compiled code has one of its own.
        """
        try:
            found = module.path.stat()
        except OSError as error:
            raise ExecutorError(f"{module.name} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode):
            raise ExecutorError(f"{module.name} is not a file", permanent=True)
        if found.st_size > MODULE_SIZE_LIMIT:
            raise ExecutorError(
                f"{module.name} has {found.st_size} bytes; a module has at most {MODULE_SIZE_LIMIT}",
                permanent=True,
            )
        identity: tuple[int | str, ...] = (module.content, found.st_size)
        if not module.content:
            identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if identity not in self._hashes:
            if found.st_size < _THREAD_SIZE:
                sha256 = module_hash(module)
            else:
                sha256 = await trio.to_thread.run_sync(module_hash, module)
            while len(self._hashes) >= _KNOWN_HASHES:
                del self._hashes[next(iter(self._hashes))]
            self._hashes[identity] = sha256
        return self._hashes[identity]

    async def _compiled_now(self, request: _Request, note: Callable[[str], None]) -> CompiledModule:
        """The compiled module, by this job or another one that has it, too. Raises OSError, ExecutorError."""
        key, size = request.key, request.module.path.stat().st_size
        text = f"{request.module.name} ({format_bytes(size)})"
        try:
            if size <= SMALL_MODULE:
                note(f"compiling {text}")
                async with self._compiling_small:
                    limits = _Limits(SMALL_MEMORY, math.ceil(SMALL_TIME), niceness=0)
                    with suppress(_OverLimit):
                        return self._known(key) or await self._compile(request, limits)
            if self._compiling.locked():
                note(f"waiting for another module to be compiled before {text}")
            async with self._compiling:
                note(f"compiling {text}")
                limits = _Limits(COMPILE_MEMORY, compile_seconds(size), COMPILE_NICENESS)
                return self._known(key) or await self._compile(request, limits)
        except _OverLimit as failure:
            self._remember(key, failure)
            raise
        finally:
            note("")

    def _known(self, key: str) -> CompiledModule | None:
        """What another job with this module has compiled meanwhile. Raises ExecutorError as it did."""
        if failure := self._failures.get(key):
            raise ExecutorError(str(failure), permanent=True)
        return self._cache.get(key)

    def _remember(self, key: str, failure: ExecutorError) -> None:
        while len(self._failures) >= _KNOWN_FAILURES:
            del self._failures[next(iter(self._failures))]
        self._failures[key] = failure

    async def _compile(self, request: _Request, limits: _Limits) -> CompiledModule:
        """Compile the module, or wait while another node does that shares the folder."""
        with trio.move_on_after(limits.cpu_seconds * WALL_CLOCK_FACTOR) as waiting:
            while True:
                with self._cache.writing(request.key) as file:
                    if file is not None:
                        waiting.deadline = math.inf
                        return await self._compile_into(file, request, limits)
                await trio.sleep(LOOK_AGAIN)
                if (compiled := self._cache.get(request.key)) is not None:
                    return compiled
        raise ExecutorError(f"another node on this machine takes too long to compile {request.module.name}")

    async def _compile_into(self, file: int, request: _Request, limits: _Limits) -> CompiledModule:
        module = request.module
        spec = {
            "op": "compile",
            "deterministic": request.deterministic,
            "module": {"name": module.name, "path": str(module.path), "sha256": request.sha256},
            "memory": limits.memory,
            "disk": COMPILED_SIZE_LIMIT,
            "cpu_seconds": limits.cpu_seconds,
            "threads_niceness": limits.niceness,
        }
        report: Mapping[str, Any] | None = None
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            async with self._processes.process(spec, file, null) as process:
                with trio.move_on_after(limits.cpu_seconds * WALL_CLOCK_FACTOR):
                    report = await process.report()
        finally:
            os.close(null)
        if report is not None and "compiled" in report:
            return self._cache.put(request.key, file, report["compiled"])
        if report is None:
            raise ExecutorError(f"compiling {module.name} takes too long on this node")
        if reason := _limit_reached(report, limits):
            raise _OverLimit(f"compiling {module.name} takes more than {reason}", permanent=True)
        failure = run_failed(report, f"compiling {module.name}", stopping=self._processes.closed)
        if failure.permanent:
            self._remember(request.key, failure)
        raise failure


def _processor_features() -> str:
    """A hash of what the processor can do: the folder may be in a home that different computers have."""
    with suppress(OSError), Path("/proc/cpuinfo").open("rb") as lines:
        for line in lines:
            if line.startswith((b"flags", b"Features")):
                return hashlib.sha256(line).hexdigest()[:8]
    return "any"


class _OverLimit(ExecutorError):
    """A compiler reached a limit, as it would on every node."""


@dataclass(frozen=True, slots=True)
class _Request:
    module: LocatedModule
    sha256: str
    key: str
    deterministic: bool


@dataclass(frozen=True, slots=True)
class _Limits:
    """`memory` in bytes."""

    memory: int
    cpu_seconds: int
    niceness: int


def compile_seconds(size: int) -> int:
    """CPU seconds in which a module of this many bytes must be compiled."""
    return math.ceil(COMPILE_TIME + COMPILE_TIME_PER_MB * size / 1_000_000)


def _limit_reached(report: Mapping[str, Any], limits: _Limits) -> str:
    """The limit that ended the compiler; empty when it was something else."""
    if used_up_cpu(report, limits.cpu_seconds):
        return f"{limits.cpu_seconds} s"
    if "failed" not in report and report.get("status") in _OUT_OF_MEMORY:
        return f"{limits.memory // 1024**2} MiB of memory"
    return ""
