"""Runs jobs in Docker containers: no network, no capabilities, no root, limits on everything that has one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trio

from bacalhau_p2p.errors import ExecutorError, Fault, InvalidJob, RunTimedOut
from bacalhau_p2p.executors.docker.engine import DockerEngine, is_permanent
from bacalhau_p2p.executors.docker.monitor import LOG_FILE, REMOVAL_TIMEOUT, Attendant, Life
from bacalhau_p2p.executors.docker.mounts import JobUser, check_readable, give, take_back
from bacalhau_p2p.executors.docker.output import AttachedOutput, LoggedOutput, logged_since_start
from bacalhau_p2p.executors.interface import STREAM_LIMIT, RunRequest
from bacalhau_p2p.executors.results import ResultsFolder
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.engine_params import DockerParams
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.validation import read_params
from bacalhau_p2p.runtime.logs import get_logger

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

LOG_FILES = 2
"""With two, a log that is shorter than one file has never dropped its beginning."""

LEFT_WITHIN = 3.0
"""Seconds to spend on containers of an engine that was away, when it is asked whether it is there."""


class DockerExecutor:
    """Runs the docker engine type. See `Executor` for what each method promises."""

    engine: Final = "docker"
    outlives_node: Final = True

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
        self._left: set[str] = set()
        """Names of containers that could not be removed when their run ended."""
        self._used = False
        self._closed = False

    async def unavailable(self) -> str | None:
        reason = await self._engine.ping()
        if reason is None and self._left:
            with trio.move_on_after(LEFT_WITHIN):
                await self._remove_left()
        return reason

    def faults(self, engine: SpecConfig) -> list[Fault]:
        try:
            read_params(DockerParams, engine)
        except InvalidJob as error:
            return list(error.faults)
        return []

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
                attendant = Attendant(self._engine, client, options["name"], results)
                return await self._attend(request, attendant, options, time_left=request.timeout)
            finally:
                self._running.discard(request.execution_id)

    async def reattach(self, request: RunRequest) -> RunOutput | None:
        """As in `Executor`. None also for a container that never started, one that went down with its
        engine or machine, and one that wrote more than the engine keeps."""
        self._running.add(request.execution_id)
        name = container_name(request.execution_id)
        try:
            return await self._go_on(await self._engine.client(), name, request)
        finally:
            self._running.discard(request.execution_id)
            with trio.CancelScope(shield=True):
                await self._remove_now(name)

    async def _go_on(self, client: APIClient, name: str, request: RunRequest) -> RunOutput | None:
        life = await self._engine.call(Life.of, client, name)
        if life is None or life.was_cut_short:
            return None
        time_left = request.timeout - life.seconds
        if time_left <= 0:
            raise _timed_out(request)
        if not await self._engine.attend(logged_since_start, client, name, LOG_FILE):
            return None
        log.info("run goes on", execution=request.execution_id, container=name, ended=life.ended is not None)
        with ResultsFolder(
            request.results, request.result_paths, limit=self._stream_limit, resumed=True
        ) as results:
            attendant = Attendant(self._engine, client, name, results)
            output = await self._attend(request, attendant, None, time_left=time_left)
            # It may have written more, or gone down with its engine, while we followed it.
            return output if attendant.whole else None

    async def sweep(self, alive: Collection[ExecutionID]) -> None:
        client = await self._engine.client()
        self._used = True
        await self._remove_mine(client, spared=alive)

    async def aclose(self) -> None:
        """As in `Executor`; runs that are broken off by it raise ExecutorError."""
        self._closed = True
        self._running.clear()
        try:
            if self._used:
                await self._remove_mine(await self._engine.client(), spared=())
        except ExecutorError as error:
            log.warning("containers may be left", reason=str(error))
        finally:
            with trio.CancelScope(shield=True):
                await self._engine.aclose()

    async def _ready_client(self) -> APIClient:
        if self._closed:
            raise _closing()
        client = await self._engine.client()
        self._used = True
        if self._left:
            await self._remove_left()
        return client

    async def _remove_mine(self, client: APIClient, *, spared: Collection[ExecutionID]) -> None:
        labelled = {"label": f"{NODE_LABEL}={self._node_id}"}
        found = await self._engine.call(client.containers, all=True, filters=labelled)
        for container in found:
            execution = container["Labels"].get(EXECUTION_LABEL)
            if execution not in spared and execution not in self._running:
                await self._engine.call(_remove, client, container["Id"])

    async def _remove_left(self) -> None:
        for name in list(self._left):
            self._left.discard(name)
            await self._remove_now(name)

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

    async def _attend(
        self,
        request: RunRequest,
        attendant: Attendant,
        options: Mapping[str, Any] | None,
        *,
        time_left: float,
    ) -> RunOutput:
        """Run a container, or go on with one (`options` None), to its end; it is gone afterwards, come what
        may. Raises as `run`."""
        results = attendant.results
        try:
            with trio.move_on_after(time_left) as limit:
                status = await self._attend_container(attendant, options)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(take_back, results.outputs.values())
        if limit.cancelled_caught:
            raise _timed_out(request)
        if self._closed:
            raise _closing()
        _raise_if_never_started(status, results)
        return results.finish(status)

    async def _attend_container(self, attendant: Attendant, options: Mapping[str, Any] | None) -> int:
        client, name = attendant.client, attendant.name
        failure: ExecutorError | None = None
        async with trio.open_nursery() as nursery:
            try:
                if options is None:
                    attendant.output = await self._engine.call(LoggedOutput, client, name)
                    nursery.start_soon(attendant.run)
                else:
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
                    await self._remove_now(name)
                    await attendant.dismiss()
        if failure is not None:
            raise failure
        return attendant.status()

    async def _remove_now(self, name: str) -> None:
        reason = "the engine does not answer"
        with trio.move_on_after(REMOVAL_TIMEOUT):
            try:
                await self._engine.last_call(_remove, await self._engine.client(), name)
                return
            except ExecutorError as error:
                reason = str(error)
        self._left.add(name)
        log.warning("container may be left", container=name, reason=reason)

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
            "environment": {**request.environment, **params.environment_variables},
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


def _timed_out(request: RunRequest) -> RunTimedOut:
    return RunTimedOut(f"the job ran longer than its {request.timeout:g} s and was stopped")


def container_name(execution_id: str) -> str:
    """The container of an execution: ids hold nothing that a name may not."""
    return "bacalhau-" + re.sub(r"[^A-Za-z0-9_.-]", "-", execution_id)


def _usable_params(request: RunRequest) -> DockerParams:
    try:
        return read_params(DockerParams, request.engine)
    except InvalidJob as error:
        raise ExecutorError("; ".join(map(str, error.faults)), permanent=True) from None


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
            type="local",
            config={"max-size": str(LOG_FILE), "max-file": str(LOG_FILES), "compress": "false"},
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
