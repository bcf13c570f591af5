"""Compiles the modules of jobs, each once, in a process of its own."""

from __future__ import annotations

import os
import platform
import stat
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.wasm.compiled_cache import HEADER, CompiledCache, CompiledModule
from bacalhau_p2p.executors.wasm.failure import run_failed
from bacalhau_p2p.executors.wasm.modules import LocatedModule, module_hash
from bacalhau_p2p.executors.wasm.processes import Processes

_THREAD_SIZE = 256 * 1024
"""Bytes of a module from which hashing it would delay everything else on the node without a thread."""
_KNOWN_HASHES = 256
"""Modules whose hash is remembered."""


class ModuleCompiler:
    """Keeps compiled modules in a cache on disk. `processes` runs the compiler."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._cache = CompiledCache(folder)
        self._processes = processes
        self._hashes: dict[tuple[int, ...], str] = {}
        self._compiling: dict[str, trio.Lock] = {}
        self._compiler = f"wasmtime-{version('wasmtime')}-{platform.machine()}"

    def open(self) -> None:
        """Raises OSError when the cache cannot be used."""
        self._cache.open()

    def discard(self, key: str) -> None:
        """Forget a compiled module that turned out to be unusable."""
        self._cache.discard(key)

    async def describe(self, module: LocatedModule, *, deterministic: bool) -> dict[str, Any]:
        """What a job's process needs to know of a module, which is compiled now unless it was before.

        Raises ExecutorError. Cancelled: the compiling process has ended.
        """
        sha256 = await self._hash(module)
        key = f"{sha256}-{self._compiler}-{'deterministic' if deterministic else 'plain'}"
        compiled = await self._compiled(module, sha256, key, deterministic)
        return {
            "name": module.name,
            "aliases": list(module.aliases),
            "path": str(module.path),
            "sha256": sha256,
            "key": key,
            "compiled": str(compiled.path),
            "skip": HEADER,
            "compiled_sha256": compiled.sha256,
        }

    async def _hash(self, module: LocatedModule) -> str:
        """The module's SHA-256, computed again only when the file may have changed."""
        try:
            found = module.path.stat()
        except OSError as error:
            raise ExecutorError(f"{module.name} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode):
            raise ExecutorError(f"{module.name} is not a file", permanent=True)
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

    async def _compiled(
        self, module: LocatedModule, sha256: str, key: str, deterministic: bool
    ) -> CompiledModule:
        """The compiled module, from the cache or made now."""
        try:
            self._cache.open()
            if found := self._cache.get(key):
                return found
            lock = self._compiling.setdefault(key, trio.Lock())
            try:
                async with lock:  # several jobs with one module compile it once
                    return self._cache.get(key) or await self._compile(module, sha256, key, deterministic)
            finally:
                if not lock.locked():
                    self._compiling.pop(key, None)
        except OSError as error:
            raise ExecutorError(f"compiling {module.name} failed: {error}") from error

    async def _compile(
        self, module: LocatedModule, sha256: str, key: str, deterministic: bool
    ) -> CompiledModule:
        spec = {
            "op": "compile",
            "deterministic": deterministic,
            "module": {"name": module.name, "path": str(module.path), "sha256": sha256},
        }
        with self._cache.writing() as file:
            null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            try:
                async with self._processes.process(spec, file, null) as process:
                    report = await process.report()
            finally:
                os.close(null)
            if "compiled" not in report:
                raise run_failed(report, f"compiling {module.name}", stopping=self._processes.closed)
            return self._cache.put(key, file, report["compiled"])
