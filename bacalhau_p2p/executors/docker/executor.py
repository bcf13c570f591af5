"""The Docker executor: one container for each execution."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from bacalhau_p2p.errors import ExecutorError, Fault, InvalidJob
from bacalhau_p2p.executors.docker.container_config import container_config, container_name
from bacalhau_p2p.executors.docker.container_monitor import (
    LOG_FILE_SIZE,
    ContainerHistory,
    ContainerMonitor,
)
from bacalhau_p2p.executors.docker.container_output import log_is_complete
from bacalhau_p2p.executors.docker.container_run import (
    NewContainer,
    explain_disk,
    explain_permissions,
    run_container,
)
from bacalhau_p2p.executors.docker.containers import Containers
from bacalhau_p2p.executors.docker.disk_quotas import DiskQuotas
from bacalhau_p2p.executors.docker.disk_watch import kept_streams, run_within
from bacalhau_p2p.executors.docker.engine import DockerEngine
from bacalhau_p2p.executors.docker.images import ImagePolicy, Images, unusable
from bacalhau_p2p.executors.docker.job_networks import NO_NETWORK, JobNetwork, JobNetworks
from bacalhau_p2p.executors.docker.job_users import IMAGE, JobUsers
from bacalhau_p2p.executors.docker.ownership import JobUser, check_readable, give_to_job
from bacalhau_p2p.executors.interface import STREAM_LIMIT, RunRequest
from bacalhau_p2p.executors.layout import Layout, arrange
from bacalhau_p2p.executors.output_limits import OutputLimits, Outputs, take_outputs
from bacalhau_p2p.executors.results import ResultsFolder, write_failed
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.engine_params import DockerParams
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.validation import read_params
from bacalhau_p2p.outbound.addresses import AddressGuard
from bacalhau_p2p.outbound.dialing import Dialer
from bacalhau_p2p.runtime.logs import get_logger

if TYPE_CHECKING:
    from docker import APIClient

log = get_logger(__name__)

FEW_OUTPUTS = 8
"""Result paths of a job without inputs that are made ready without a thread."""


class DockerExecutor:
    """Runs the docker engine type. Methods do what `Executor` says."""

    engine: Final = "docker"
    outlives_node: Final = True

    def __init__(
        self,
        node_id: str,
        *,
        user: str = IMAGE,
        full_network: str = "bridge",
        stream_limit: int = STREAM_LIMIT,
        images: ImagePolicy | None = None,
        folder: Path | None = None,
        dialer: Dialer | None = None,
    ) -> None:
        """`node_id` labels the containers, so that the node finds them after a restart.

        `user` of jobs: `image` is that of the image unless that is root, `nobody` (65534), `UID` or
        `UID:GID`. A process that is not root runs jobs as its own user. `full_network` is the engine's
        network for jobs that ask for `Full`.
        `stream_limit` in bytes, of stdout and of stderr each. `images` says which images are pulled and kept;
        which they are is remembered in `folder`, or until the process ends. `dialer` connects jobs that ask
        for `HTTP`; by default to public addresses. Raises SettingsError.
        """
        self._node_id = node_id
        self._stream_limit = stream_limit
        self._engine = DockerEngine()
        self._quotas = DiskQuotas(self._engine)
        self._users = JobUsers(self._engine, user)
        self._containers = Containers(self._engine, node_id)
        self._networks = JobNetworks(
            self._engine,
            self._containers,
            node_id=node_id,
            full_network=full_network,
            dialer=dialer or Dialer(AddressGuard()),
        )
        record = None if folder is None else folder / "docker-images.json"
        self._images = Images(self._engine, images or ImagePolicy(), record)

    async def unavailable(self) -> str | None:
        return await self._engine.ping()

    def network_problem(self, network: str) -> str | None:
        return self._networks.problem(network)

    def faults(self, engine: SpecConfig) -> list[Fault]:
        try:
            params = read_params(DockerParams, engine)
        except InvalidJob as error:
            return list(error.faults)
        return self._images.faults(params.image)

    async def prepare(self, request: RunRequest) -> None:
        params = self._usable_params(request)
        client = await self._containers.client()
        await self._check_gpus(client, request)
        details = await self._images.ensure(params.image, request.note)
        await self._users.learn(params.image, details)

    async def run(self, request: RunRequest) -> RunOutput:
        params = self._usable_params(request)
        client = await self._containers.client()
        user = await self._users.user_of(params.image)
        with ResultsFolder(request.results, request.result_paths, limit=self._stream_limit) as results:
            for source in request.inputs:
                check_readable(source, user)
            layout = arrange(request.inputs, results.outputs)
            if request.inputs or len(results.outputs) > FEW_OUTPUTS:
                await trio.to_thread.run_sync(_make_ready, results.outputs.values(), user, layout)
            else:
                _make_ready(results.outputs.values(), user, layout)
            await self._containers.gone(container_name(request.execution_id))
            with self._containers.using(request.execution_id):
                async with self._networks.opened(client, request, params.image) as network:
                    quota = await self._quotas.of(client, request.resources)
                    config = self._config(client, request, params, layout, user, network=network, quota=quota)
                    monitor = ContainerMonitor(self._engine, client, config["name"], results)
                    new = NewContainer(config=config, user=user, layout=layout, quotas=self._quotas)
                    return await self._run(request, monitor, new, network, time_left=request.timeout)

    async def reattach(self, request: RunRequest) -> RunOutput | None:
        """As in `Executor`. None also for a container that never started, that stopped with its engine or
        machine, or that wrote more than the engine keeps."""
        name = container_name(request.execution_id)
        with self._containers.using(request.execution_id):
            try:
                return await self._follow(await self._engine.client(), name, request)
            finally:
                await self._containers.remove(name)

    async def sweep(self, alive: Collection[ExecutionID]) -> None:
        await self._containers.sweep(alive)
        await self._images.collect()

    async def aclose(self) -> None:
        """As in `Executor`; runs that it ends raise ExecutorError."""
        try:
            await self._containers.aclose()
        finally:
            with trio.CancelScope(shield=True):
                await self._engine.aclose()

    def _usable_params(self, request: RunRequest) -> DockerParams:
        if faults := self.faults(request.engine):
            raise unusable(faults)
        return read_params(DockerParams, request.engine)

    async def _check_gpus(self, client: APIClient, request: RunRequest) -> None:
        if request.resources.gpu:
            info = await self._engine.call(client.info)
            if "nvidia" not in info.get("Runtimes", {}):
                raise ExecutorError("GPU: the Docker engine of this node has no nvidia runtime")

    def _config(
        self,
        client: APIClient,
        request: RunRequest,
        params: DockerParams,
        layout: Layout,
        user: JobUser,
        *,
        network: JobNetwork = NO_NETWORK,
        quota: int | None = None,
    ) -> dict[str, Any]:
        return container_config(
            client,
            request,
            params,
            layout.mounts,
            node_id=self._node_id,
            user=user,
            network_mode=network.mode,
            network_environment=network.environment,
            disk_quota=quota,
        )

    async def _follow(self, client: APIClient, name: str, request: RunRequest) -> RunOutput | None:
        """Follow a container of an earlier process to its end, if its results will be complete."""
        history = await self._engine.call(ContainerHistory.of, client, name)
        if history is None or history.was_interrupted:
            return None
        time_left = request.timeout - history.seconds()
        if time_left <= 0:
            raise request.timed_out()
        if not await self._engine.long_call(log_is_complete, client, name, LOG_FILE_SIZE):
            return None
        log.info(
            "run_reattached",
            execution=request.execution_id,
            container=name,
            ended=history.ended is not None,
        )
        with ResultsFolder(
            request.results, request.result_paths, limit=self._stream_limit, resumed=True
        ) as results:
            monitor = ContainerMonitor(self._engine, client, name, results)
            monitor.usage.open(history.id)
            async with self._networks.reopened(client, request) as network:
                output = await self._run(request, monitor, None, network, time_left=time_left)
            return output if monitor.output_is_complete else None

    async def _run(
        self,
        request: RunRequest,
        monitor: ContainerMonitor,
        new: NewContainer | None,
        network: JobNetwork,
        *,
        time_left: float,
    ) -> RunOutput:
        """Run a new container, or follow an existing one (`new` None), to its end. Raises as `run`."""
        results, limits = monitor.results, OutputLimits.of_disk(request.resources.disk)
        run = partial(run_container, self._engine, self._containers, monitor, new)
        try:
            with trio.move_on_after(time_left) as limit:
                status = await run_within(limits, self._engine, monitor, run)
        finally:
            monitor.usage.report(request.meter)
        if limit.cancelled_caught:
            raise request.timed_out()
        if new is not None:
            new.layout.remove_mount_points()
        if status and not request.deterministic:  # results of nodes are compared
            network.explain(results)
            explain_disk(results, limits.size)
            if new is not None:
                explain_permissions(results, new.user)
        left_out = await take_outputs(Outputs(results.outputs), limits, streams=kept_streams(results))
        return results.finish(status, left_out)


def _make_ready(outputs: Iterable[Path], user: JobUser, layout: Layout) -> None:
    """Raises ExecutorError."""
    give_to_job(outputs, user)
    try:
        layout.make_mount_points()
    except OSError as error:
        raise write_failed(error) from error
