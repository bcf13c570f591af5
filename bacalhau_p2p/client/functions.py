"""Functions as jobs: brings to the node what a call needs, and reads what came of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread

from bacalhau_p2p.client.backend import Backend
from bacalhau_p2p.client.jobs import JobHandle
from bacalhau_p2p.functions import interpreter
from bacalhau_p2p.functions.bundle import Bundle
from bacalhau_p2p.functions.encoding import encode_call
from bacalhau_p2p.functions.jobs import MAX_INLINE, Call, CallResult, job_of, value_of
from bacalhau_p2p.functions.remote import RemoteFunction
from bacalhau_p2p.model.base import JobID
from bacalhau_p2p.model.job import JobSpec

_KNOWN_BUNDLES = 256
"""Functions of which a client remembers that its node has them."""

R = TypeVar("R")


class FunctionJob(JobHandle, Generic[R]):
    """A call of a function that runs as a job: a `JobHandle`, with the value that comes of it."""

    def __init__(self, backend: Backend, job_id: JobID, call: PreparedFunction[R]) -> None:
        super().__init__(backend, job_id)
        self._call = call

    async def value(self, timeout: float | None = None) -> R:
        """What the function returned.

        Raises RemoteError for what it raised, JobFailed if it did not run to its end, JobNotFinished if it
        has not after `timeout` seconds, InvalidValue for a result that is none. Cancelled: the job continues.
        """
        return await self._call.value_of(await self.wait_result(timeout))


class FunctionCalls:
    """What a client's node has already of the functions that run there. May be used by many tasks at once."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._bundles: dict[str, str] = {}
        self._interpreter = ""
        self._adding = anyio.Lock()

    def prepare(self, function: RemoteFunction[..., R]) -> PreparedFunction[R]:
        """The function as it is when its first job is made."""
        return PreparedFunction(self, function)

    async def interpreter(self) -> str:
        """The CID of the interpreter, which the node has from now on.

        Raises InvalidFunction if it is not installed, ContentError.
        """
        async with self._adding:
            if not self._interpreter:
                path = await anyio.to_thread.run_sync(interpreter.checked)
                self._interpreter = await self._backend.add(path)
        return self._interpreter

    async def bundle(self, bundle: Bundle) -> str:
        """The CID of the bundle, which the node has from now on. Raises ContentError."""
        async with self._adding:
            if bundle.digest not in self._bundles:
                cid = await self._add(bundle.write)
                while len(self._bundles) >= _KNOWN_BUNDLES:
                    del self._bundles[next(iter(self._bundles))]
                self._bundles[bundle.digest] = cid
            return self._bundles[bundle.digest]

    async def arguments(self, document: bytes) -> bytes | str:
        """The arguments as a job has them: themselves, or the CID of a file with them."""
        if len(document) <= MAX_INLINE:
            return document
        return await self._add(lambda path: path.write_bytes(document))

    async def _add(self, write: Any) -> str:
        """Add what `write` makes at a path."""
        with tempfile.TemporaryDirectory(prefix="bacalhau-p2p-function-") as folder:
            path = Path(folder) / "content"
            await anyio.to_thread.run_sync(write, path)
            return await self._backend.add(path)


class PreparedFunction(Generic[R]):
    """A function on its way to jobs: captured once, when the first of them is made."""

    def __init__(self, calls: FunctionCalls, function: RemoteFunction[..., R]) -> None:
        self._calls = calls
        self._function = function
        self._cids: tuple[str, str] | None = None
        self._capturing = anyio.Lock()
        self._classes: Mapping[str, type] = {}

    async def job_of(self, /, *args: object, **kwargs: object) -> JobSpec:
        """The job of one call. Raises InvalidFunction, InvalidValue, InvalidJob, ContentError; TypeError for
        arguments that the function does not take."""
        self._function.check_arguments(args, kwargs)
        interpreter_cid, bundle_cid = await self._captured()
        document, placed = encode_call(args, kwargs, self._classes)
        options = self._function.options
        placed.add(options.inputs)
        call = Call(
            name=self._function.name,
            interpreter=interpreter_cid,
            bundle=bundle_cid,
            arguments=await self._calls.arguments(document),
            inputs=placed.targets,
        )
        return job_of(call, options)

    async def _captured(self) -> tuple[str, str]:
        """The CIDs of the interpreter and of the bundle."""
        async with self._capturing:
            if self._cids is None:
                captured, bundle = await anyio.to_thread.run_sync(self._function.capture)
                self._classes = captured.classes
                self._cids = await self._calls.interpreter(), await self._calls.bundle(bundle)
            return self._cids

    async def value_of(self, result: CallResult) -> R:
        """What the function returned in the job with this result. Raises as `FunctionJob.value`."""
        value: R = await value_of(result, self._classes, self._function.options.memory)
        return value
