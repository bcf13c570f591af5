"""The WebAssembly executor: WASI programs, each in a process of its own, on wasmtime."""

from __future__ import annotations

import fcntl
import os
import platform
import signal
import stat
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trio
from pydantic import ValidationError

from bacalhau_p2p.errors import ExecutorError, Fault, RunTimedOut
from bacalhau_p2p.executors.interface import STREAM_LIMIT, RunRequest
from bacalhau_p2p.executors.results import KeptStream, ResultsFolder
from bacalhau_p2p.executors.wasm.cache import HEADER, Compiled, CompiledCache
from bacalhau_p2p.executors.wasm.modules import Located, Mounts, locate, mounts, read_module
from bacalhau_p2p.executors.wasm.process import Processes
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.engine_params import WasmParams
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.validation import faults_of

_PIPE_SIZE = 256 * 1024
_IN_A_THREAD = 256 * 1024
"""Bytes from which hashing a file, or writing a stream, would hold up everything else on the node."""
_REMEMBERED = 256
"""Modules whose hash is remembered."""


class WasmExecutor:
    """Runs WASI preview 1 modules. `cache` is a folder for compiled modules, this executor's own;
    `stream_limit` the bytes of stdout, and of stderr, that are kept.

    A module that traps has run: its exit code is 134 and the trap is the end of its stderr.
    """

    def __init__(self, cache: Path, *, stream_limit: int = STREAM_LIMIT) -> None:
        self._stream_limit = stream_limit
        self._cache = CompiledCache(cache)
        self._processes = Processes()
        self._hashes: dict[tuple[int, ...], str] = {}
        self._compiling: dict[str, trio.Lock] = {}
        self._compiler = f"wasmtime-{version('wasmtime')}-{platform.machine()}"

    @property
    def engine(self) -> str:
        return "wasm"

    @property
    def outlives_node(self) -> bool:
        return False

    async def unavailable(self) -> str | None:
        """Why it cannot run anything, or None; then a process is warm and the first run starts fast."""
        try:
            self._cache.open()
            await self._processes.warm_up()
        except ExecutorError as error:
            return str(error)
        except OSError as error:
            return f"the folder for compiled modules cannot be used: {error}"
        return None

    def faults(self, engine: SpecConfig) -> list[Fault]:
        try:
            WasmParams.from_wire(engine.params)
        except ValidationError as error:
            return faults_of(error, "Params")
        return []

    async def prepare(self, request: RunRequest) -> None:
        """Find the modules among the inputs and compile those that never were.

        Raises ExecutorError. Cancelled: the compiling process is gone.
        """
        for module in _modules(_params(request.engine), request):
            await self._compiled(module, await self._hash(module), request.deterministic)

    async def run(self, request: RunRequest) -> RunOutput:
        """As `Executor.run`. A missing entry point or import is an ExecutorError, permanent."""
        params = _params(request.engine)
        modules = _modules(params, request)
        hashes = [await self._hash(module) for module in modules]
        described = [
            self._described(
                module, sha256, await self._compiled(module, sha256, request.deterministic), request
            )
            for module, sha256 in zip(modules, hashes, strict=True)
        ]
        with ResultsFolder(request.results, request.result_paths, limit=self._stream_limit) as results:
            used = {id(module.source) for module in modules if not module.source.path.is_dir()}
            shown = [source for source in request.inputs if id(source) not in used]
            spec = _spec(params, request, described, mounts(shown, results.outputs, request.work))
            report = await self._run_child(spec, results, request.timeout)
            if report is None:
                raise RunTimedOut(f"the job ran longer than {request.timeout:g} s")
            for key in report.get("stale", ()):
                self._cache.discard(key)
            if "exit" not in report:
                raise self._failure(report, "running it")
            return results.finish(report["exit"])

    async def reattach(self, request: RunRequest) -> RunOutput | None:
        """None: no run outlives its node."""
        await trio.lowlevel.checkpoint()
        return None

    async def sweep(self, alive: Collection[ExecutionID]) -> None:
        """There is nothing to remove: no run outlives its node."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await self._processes.aclose()

    # --- modules --------------------------------------------------------------------------

    async def _hash(self, module: Located) -> str:
        """The module's SHA-256, read again only when the file may have changed."""
        try:
            found = module.path.stat()
        except OSError as error:
            raise ExecutorError(f"{module.name} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode):
            raise ExecutorError(f"{module.name} is not a file", permanent=True)
        known = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if known not in self._hashes:
            if found.st_size < _IN_A_THREAD:
                sha256 = read_module(module)
            else:
                sha256 = await trio.to_thread.run_sync(read_module, module)
            while len(self._hashes) >= _REMEMBERED:
                del self._hashes[next(iter(self._hashes))]
            self._hashes[known] = sha256
        return self._hashes[known]

    def _key(self, sha256: str, deterministic: bool) -> str:
        return f"{sha256}-{self._compiler}-{'deterministic' if deterministic else 'plain'}"

    async def _compiled(self, module: Located, sha256: str, deterministic: bool) -> Compiled:
        """The compiled module, from the cache or made now. Raises ExecutorError."""
        key = self._key(sha256, deterministic)
        try:
            self._cache.open()
            if found := self._cache.get(key):
                return found
            lock = self._compiling.setdefault(key, trio.Lock())
            try:
                async with lock:  # several jobs of one module compile it once
                    return self._cache.get(key) or await self._compile(module, sha256, key, deterministic)
            finally:
                if not lock.locked():
                    self._compiling.pop(key, None)
        except OSError as error:
            raise ExecutorError(f"{module.name} could not be compiled: {error}") from error

    async def _compile(self, module: Located, sha256: str, key: str, deterministic: bool) -> Compiled:
        spec = {
            "op": "compile",
            "deterministic": deterministic,
            "module": {"name": module.name, "path": str(module.path), "sha256": sha256},
        }
        with self._cache.writing() as file:
            null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            try:
                async with self._processes.child(spec, file, null) as child:
                    report = await child.report()
            finally:
                os.close(null)
            if "compiled" not in report:
                raise self._failure(report, f"compiling {module.name}")
            return self._cache.put(key, file, report["compiled"])

    def _described(
        self, module: Located, sha256: str, compiled: Compiled, request: RunRequest
    ) -> dict[str, Any]:
        return {
            "name": module.name,
            "aliases": list(module.aliases),
            "path": str(module.path),
            "sha256": sha256,
            "key": self._key(sha256, request.deterministic),
            "compiled": str(compiled.path),
            "skip": HEADER,
            "compiled_sha256": compiled.sha256,
        }

    # --- running --------------------------------------------------------------------------

    async def _run_child(
        self, spec: Mapping[str, Any], results: ResultsFolder, timeout: float
    ) -> Mapping[str, Any] | None:
        """What the process reported, None after the time-out; its streams are in the results by then."""
        troubles: list[ExecutorError] = []
        pipes = _Pipes()
        try:
            async with self._processes.child(spec, *pipes.writers) as child:
                pipes.close_writers()
                report: Mapping[str, Any] | None = None
                async with trio.open_nursery() as nursery:

                    async def drain(pipe: int, stream: KeptStream) -> None:
                        try:
                            await _drain(pipe, stream)
                        except ExecutorError as error:
                            troubles.append(error)
                            nursery.cancel_scope.cancel()

                    nursery.start_soon(drain, pipes.readers[0], results.stdout)
                    nursery.start_soon(drain, pipes.readers[1], results.stderr)
                    with trio.move_on_after(timeout):
                        report = await child.report()
                    await child.kill()  # and with it the pipes end
        finally:
            pipes.close()
        if troubles:
            raise troubles[0]
        return report

    def _failure(self, report: Mapping[str, Any], doing: str) -> ExecutorError:
        """Why there is no result, from what the process said or how it ended."""
        if "failed" in report:
            return ExecutorError(report["failed"], permanent=report["permanent"])
        if self._processes.closed:
            return ExecutorError("this node is stopping")
        status = report.get("status", -signal.SIGKILL)
        if status < 0:
            how = f"was ended by {signal.Signals(-status).name}; it may have needed more memory than there is"
        else:
            how = f"ended with status {status}"
        return ExecutorError(f"{doing}: the WebAssembly process {how}")


def _params(engine: SpecConfig) -> WasmParams:
    try:
        return WasmParams.from_wire(engine.params)
    except ValidationError as error:
        raise ExecutorError("; ".join(map(str, faults_of(error, "Params"))), permanent=True) from error


def _modules(params: WasmParams, request: RunRequest) -> Sequence[Located]:
    """The modules in the order in which they come to life: the entry module last."""
    return [locate(name, request.inputs) for name in (*params.import_modules, params.entry_module)]


def _spec(
    params: WasmParams, request: RunRequest, modules: Sequence[Mapping[str, Any]], shown: Mounts
) -> dict[str, Any]:
    environment = {**request.environment, **params.environment_variables}
    return {
        "op": "run",
        "modules": modules,
        "entrypoint": params.entrypoint,
        "argv": [modules[-1]["name"], *params.parameters],
        "env": sorted(environment.items()),
        "preopens": shown.preopens,
        "links": shown.links,
        "memory": request.resources.memory,
        "disk": request.resources.disk,
        "deterministic": request.deterministic,
    }


class _Pipes:
    """Two pipes, for stdout and stderr; every end is closed once."""

    def __init__(self) -> None:
        first, second = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        self.readers = (first[0], second[0])
        self.writers = (first[1], second[1])
        self._writing = True
        for fd in self.readers:
            os.set_blocking(fd, False)
            with suppress(OSError):  # this user has many pipes; smaller ones work too
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)

    def close_writers(self) -> None:
        if self._writing:
            self._writing = False
            for fd in self.writers:
                os.close(fd)

    def close(self) -> None:
        self.close_writers()
        for fd in self.readers:
            os.close(fd)


async def _drain(pipe: int, stream: KeptStream) -> None:
    """Move everything from the pipe into the stream until all who could write are gone."""
    while True:
        await trio.lowlevel.wait_readable(pipe)
        try:
            data = os.read(pipe, _PIPE_SIZE)
        except BlockingIOError:
            continue
        if not data:
            return
        if stream.kept < _IN_A_THREAD or not stream.room:
            stream.write(data)
        else:
            await trio.to_thread.run_sync(stream.write, data)
