"""Runs jobs in Docker containers: no network, no capabilities, no root, limits on everything that has one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trio

from bacalhau_p2p.errors import ExecutorError, Fault, RunTimedOut
from bacalhau_p2p.executors.docker_engine import DockerEngine, is_permanent
from bacalhau_p2p.executors.docker_folders import JobUser, check_readable, give, take_back
from bacalhau_p2p.executors.docker_output import STDERR, AttachedOutput
from bacalhau_p2p.executors.docker_params import DockerParams, read_params
from bacalhau_p2p.executors.interface import STREAM_LIMIT, RunRequest
from bacalhau_p2p.executors.results import ResultsFolder
from bacalhau_p2p.logs import get_logger
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import SpecConfig

if TYPE_CHECKING:
    from docker import APIClient
    from docker.types import Mount

log = get_logger(__name__)

NODE_LABEL = "bacalhau-p2p.node"
JOB_LABEL = "bacalhau-p2p.job"
EXECUTION_LABEL = "bacalhau-p2p.execution"

PIDS_LIMIT = 1024
"""Processes and threads of one job."""

CPU_PERIOD = 250_000
"""Microseconds over which CPU time is shared out. At the engine's own 100 ms, a job with a tenth of a
core is stopped while its container starts: 250 instead of 180 ms for one that does nothing."""

MINIMUM_CPU_QUOTA = 1000
"""Microseconds in one period; the kernel takes no less."""

MINIMUM_MEMORY = 6 * 1024**2
"""Bytes; the engine takes no less."""

LOG_LIMIT = "64m"
"""What the engine keeps of a container's output, beside the whole that we keep."""

REMOVAL_TIMEOUT = 20.0
"""Seconds for the engine to kill and remove one container (0.1 s when all is well)."""

OOM_STATUS = 137
"""What a process killed by SIGKILL ends with."""


class DockerExecutor:
    """Runs the docker engine type. See `Executor` for what each method promises."""

    engine: Final = "docker"

    def __init__(
        self,
        node_id: str,
        *,
        user: str | None = None,
        full_network: str = "bridge",
        stream_limit: int = STREAM_LIMIT,
    ) -> None:
        """`node_id` labels the containers, so that those of an earlier life can be told.

        `user` is `UID` or `UID:GID`, numeric; without one it is that of this process, or nobody
        (65534) where this process is root. `full_network` is the engine's network for jobs that ask
        for `Full`. `stream_limit` in bytes, of stdout and of stderr each. Raises SettingsError.
        """
        self._node_id = node_id
        self._user = JobUser.parse(user) if user is not None else JobUser.of_this_process()
        self._full_network = full_network
        self._stream_limit = stream_limit
        self._engine = DockerEngine()
        self._running: set[ExecutionID] = set()
        self._sweeping = trio.Lock()
        self._swept = False
        self._closed = False

    async def unavailable(self) -> str | None:
        return await self._engine.ping()

    def faults(self, engine: SpecConfig) -> list[Fault]:
        return read_params(engine)[1]

    async def prepare(self, request: RunRequest) -> None:
        params = _usable_params(request)
        self._check_network(request)
        client = await self._ready_client()
        await self._check_gpus(client, request)
        if not await self._engine.call(_has_image, client, params.image):
            await self._engine.attend(_pull, client, params.image)

    async def run(self, request: RunRequest) -> RunOutput:
        params = _usable_params(request)
        self._check_network(request)
        client = await self._ready_client()
        with ResultsFolder(request.results, request.result_paths, limit=self._stream_limit) as results:
            for source in request.inputs:
                check_readable(source, self._user)
            await trio.to_thread.run_sync(give, results.outputs.values(), self._user)
            options = self._container(client, request, params, results)
            self._running.add(request.execution_id)
            try:
                with trio.move_on_after(request.timeout) as limit:
                    status = await self._run_container(client, options, results)
            finally:
                self._running.discard(request.execution_id)
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(take_back, results.outputs.values())
            if limit.cancelled_caught:
                raise RunTimedOut(f"the job ran longer than its {request.timeout:g} s and was stopped")
            if self._closed:
                raise _closing()
            _raise_if_never_started(status, results)
            return results.finish(status)

    async def sweep(self) -> None:
        """Remove the containers that an earlier life of this node left behind. Raises ExecutorError.

        Happens by itself before the first container; calling it earlier frees their memory earlier.
        """
        async with self._sweeping:
            await self._remove_mine(await self._engine.client())
            self._swept = True

    async def reattach(self, request: RunRequest) -> RunOutput | None:
        """None: containers of an earlier life of the node are removed, and their executions run afresh."""
        await self.sweep()
        return None

    async def aclose(self) -> None:
        """As in `Executor`; runs that are broken off by it raise ExecutorError."""
        self._closed = True
        self._running.clear()
        try:
            if self._swept:
                await self._remove_mine(await self._engine.client())
        except ExecutorError as error:
            log.warning("containers may be left", reason=str(error))
        finally:
            with trio.CancelScope(shield=True):
                await self._engine.aclose()

    async def _ready_client(self) -> APIClient:
        if self._closed:
            raise _closing()
        client = await self._engine.client()
        if not self._swept:
            async with self._sweeping:
                if not self._swept:
                    await self._remove_mine(client)
                    self._swept = True
        return client

    async def _remove_mine(self, client: APIClient) -> None:
        labelled = {"label": f"{NODE_LABEL}={self._node_id}"}
        found = await self._engine.call(client.containers, all=True, filters=labelled)
        for container in found:
            if container["Labels"].get(EXECUTION_LABEL) not in self._running:
                await self._engine.call(_remove, client, container["Id"])

    def _check_network(self, request: RunRequest) -> None:
        if request.network.type.lower() not in ("none", "full"):
            raise ExecutorError(
                f"network {request.network.type}: not supported by this node yet", permanent=True
            )

    async def _check_gpus(self, client: APIClient, request: RunRequest) -> None:
        if request.resources.gpu:
            info = await self._engine.call(client.info)
            if "nvidia" not in info.get("Runtimes", {}):
                raise ExecutorError("GPU: the Docker engine of this node has no runtime for GPUs")

    async def _run_container(
        self, client: APIClient, options: Mapping[str, Any], results: ResultsFolder
    ) -> int:
        """Run the container to its end and return its exit status; it is gone afterwards, come what may."""
        name = options["name"]
        attendant = _Attendant(self._engine, client, name, results)
        failure: ExecutorError | None = None
        async with trio.open_nursery() as nursery:
            try:
                await self._engine.call(client.create_container, **options)
                # Attached before it starts: whoever attaches later misses the first lines.
                attendant.output = await self._engine.call(AttachedOutput, client, name)
                nursery.start_soon(attendant.run)
                if self._closed:
                    raise _closing()
                await self._engine.call(client.start, name)
                await attendant.ended.wait()
            except ExecutorError as error:
                failure = error
            finally:
                with trio.CancelScope(shield=True):
                    await self._remove_now(client, name)
                    await attendant.dismiss()
        if failure is not None:
            raise failure
        return attendant.status()

    async def _remove_now(self, client: APIClient, name: str) -> None:
        with trio.move_on_after(REMOVAL_TIMEOUT) as limit:
            try:
                await self._engine.last_call(_remove, client, name)
            except ExecutorError as error:
                log.warning("container may be left", container=name, reason=str(error))
        if limit.cancelled_caught:
            log.warning("container may be left", container=name, reason="the engine does not answer")

    def _container(
        self, client: APIClient, request: RunRequest, params: DockerParams, results: ResultsFolder
    ) -> dict[str, Any]:
        """What the engine is asked to create."""
        full = request.network.type.lower() == "full"
        return {
            "image": params.image,
            "name": container_name(request.execution_id),
            "entrypoint": list(params.entrypoint) or None,
            "command": list(params.parameters) or None,
            "environment": {**request.environment, **params.environment},
            "working_dir": params.working_directory or None,
            "user": str(self._user),
            "labels": {
                **request.labels,
                NODE_LABEL: self._node_id,
                JOB_LABEL: request.job_id,
                EXECUTION_LABEL: request.execution_id,
            },
            # A third of the start is setting up a network; `none` alone still sets one up.
            "network_disabled": not full,
            "host_config": client.create_host_config(
                network_mode=self._full_network if full else "none",
                mounts=list(_mounts(request, results)),
                **_limits(request),
            ),
        }


def _closing() -> ExecutorError:
    return ExecutorError("this node's Docker executor was closed")


def container_name(execution_id: str) -> str:
    """The container of an execution: ids hold nothing that a name may not."""
    return "bacalhau-" + re.sub(r"[^A-Za-z0-9_.-]", "-", execution_id)


def _usable_params(request: RunRequest) -> DockerParams:
    params, faults = read_params(request.engine)
    if faults:
        raise ExecutorError("; ".join(map(str, faults)), permanent=True)
    return params


def _mounts(request: RunRequest, results: ResultsFolder) -> Iterable[Mount]:
    from docker.types import Mount

    for source in request.inputs:
        yield Mount(source.target, str(source.path.absolute()), type="bind", read_only=source.read_only)
    for target, folder in results.outputs.items():
        yield Mount(target, str(folder.absolute()), type="bind")


def _limits(request: RunRequest) -> dict[str, Any]:
    """Resources and privileges. An amount of zero is no limit."""
    from docker.types import DeviceRequest, LogConfig, Ulimit

    limits: dict[str, Any] = {
        "pids_limit": PIDS_LIMIT,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "ulimits": [Ulimit(name="core", soft=0, hard=0)],
        # PID 1 ignores signals that it does not handle, abort() included; with init the job is not PID 1.
        "init": True,
        "log_config": LogConfig(
            type="local", config={"max-size": LOG_LIMIT, "max-file": "1", "compress": "false"}
        ),
    }
    if request.resources.cpu > 0:
        limits["cpu_period"] = CPU_PERIOD
        limits["cpu_quota"] = max(MINIMUM_CPU_QUOTA, round(request.resources.cpu * CPU_PERIOD))
    if request.resources.memory > 0:
        memory = max(MINIMUM_MEMORY, request.resources.memory)
        limits["mem_limit"] = limits["memswap_limit"] = memory  # equal: no swap
    if request.resources.gpu > 0:
        limits["device_requests"] = [DeviceRequest(count=request.resources.gpu, capabilities=[["gpu"]])]
    return limits


class _Attendant:
    """Takes a container's output to the results folder, and notes how the container ended."""

    def __init__(self, engine: DockerEngine, client: APIClient, name: str, results: ResultsFolder) -> None:
        self._engine = engine
        self._client = client
        self._name = name
        self._results = results
        self._scope = trio.CancelScope(shield=True)
        self._status: int | None = None
        self._error: ExecutorError | None = None
        self.output: AttachedOutput | None = None
        self.ended = trio.Event()

    async def run(self) -> None:
        # Cancelled only by `dismiss`: the thread writes to files that are closed after it.
        with self._scope:
            try:
                self._status = await self._engine.attend(self._follow)
            except ExecutorError as error:
                self._error = error
        self.ended.set()

    def _follow(self) -> int:
        assert self.output is not None
        for stream, data in self.output:
            (self._results.stderr if stream == STDERR else self._results.stdout).write(data)
        # Seldom is there anything left to wait for: only where the job closed its output and went on.
        status = int(self._client.wait(self._name, timeout=None)["StatusCode"])
        if status == OOM_STATUS:
            container = self._client.inspect_container(self._name)
            if container["State"]["OOMKilled"]:
                limit = container["HostConfig"]["Memory"]
                note = f"out of memory: killed at the limit of {limit} bytes\n"
                self._results.stderr.write(note.encode())
        return status

    async def dismiss(self) -> None:
        """To be called once the container is gone; ends the thread, and gives the connection back."""
        if self.output is None:
            return
        if not self.ended.is_set():
            self.output.hang_up()
            with trio.move_on_after(REMOVAL_TIMEOUT):
                await self.ended.wait()
            self._scope.cancel()
        self.output.close()

    def status(self) -> int:
        if self._error is not None:
            raise self._error
        assert self._status is not None
        return self._status


def _has_image(client: APIClient, image: str) -> bool:
    from docker.errors import ImageNotFound

    try:
        client.inspect_image(image)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return False
    return True


def _pull(client: APIClient, image: str) -> None:
    """Raises ExecutorError, permanent when the registry says that there is no such image."""
    from docker.errors import APIError
    from docker.utils import parse_repository_tag

    repository, tag = parse_repository_tag(image)
    try:
        # Without a tag the engine would pull every one there is.
        for line in client.pull(repository, tag=tag or "latest", stream=True, decode=True):
            trio.from_thread.check_cancelled()
            if "error" in line:
                raise _pull_error(image, str(line["error"]))
    except APIError as error:
        raise _pull_error(image, str(error.explanation or error)) from error


_NO_SUCH_IMAGE = re.compile(
    r"not found|manifest unknown|name unknown|does not exist|access denied|unauthorized|no matching manifest"
)


def _pull_error(image: str, message: str) -> ExecutorError:
    message = message.strip()
    if "invalid reference" in message or "invalid tag" in message:
        return ExecutorError(f"image {image}: {message}", permanent=True)
    if _NO_SUCH_IMAGE.search(message) and "lookup" not in message:
        return ExecutorError(f"image {image}: not found ({message})", permanent=True)
    return ExecutorError(f"image {image}: the registry cannot be reached ({message})")


def _remove(client: APIClient, container: str) -> None:
    from docker.errors import NotFound

    with suppress(NotFound):  # never created, or gone already: what was wanted
        client.remove_container(container, force=True, v=True)


_INIT_FAILED = re.compile(rb"\A\[FATAL tini \(\d+\)\] (exec .+ failed: .+)\n")
_INIT_STATUSES = (126, 127)


def _raise_if_never_started(status: int, results: ResultsFolder) -> None:
    """With an init the engine starts the init, and it is the init that finds no command to run."""
    if status not in _INIT_STATUSES or results.stdout.kept:
        return
    if match := _INIT_FAILED.match(results.stderr.head()):
        message = match[1].decode(errors="replace")
        raise ExecutorError(message, permanent=is_permanent(message))
