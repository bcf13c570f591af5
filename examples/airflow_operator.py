"""An operator for Apache Airflow 3: a task that runs a job on the network and returns the CID of its result.

    BacalhauOperator(task_id="count", job="count.yaml", deferrable=True)

Install `bacalhau_p2p_client` beside Airflow, and name the node by the variables of the command line or `api`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from bacalhau_p2p import BacalhauError, Client, JobLike, LogsUnavailable, SyncClient


class BacalhauOperator(BaseOperator):  # type: ignore[misc]
    """Submits `job` (a mapping, YAML text, a file, or what `docker` makes) and waits for its result.

    The output of the job is in the task's log. A job that fails, or whose program exits with another status
    than 0, fails the task. A `deferrable` task waits in Airflow's triggerer, without a worker.
    """

    template_fields = ("job",)
    template_ext = (".yaml", ".json")

    def __init__(
        self, *, job: JobLike, api: str | None = None, deferrable: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.api = api
        self.deferrable = deferrable
        self.job_id: str | None = None

    def execute(self, context: Mapping[str, Any]) -> str:
        """The CID of the result. The same attempt of a task never runs a second job."""
        task = context["ti"]
        attempt = (task.dag_id, task.run_id, task.task_id, task.map_index, task.try_number)
        with SyncClient(self.api) as client:
            job = client.submit(self.job, idempotency_token="/".join(map(str, attempt)))
            self.job_id = job.id
            self.log.info("submitted job %s", job.id)
            if not self.deferrable:
                with suppress(LogsUnavailable):  # nothing ran: the result says why
                    for piece in job.logs(follow=True):
                        self.log.info("%s", piece.data.decode(errors="replace").rstrip("\n"))
                return job.wait_result(check=True).cid
        self.defer(trigger=JobEnded(job_id=job.id, api=self.api), method_name="resume")
        raise AssertionError("defer raises")

    def resume(self, context: Mapping[str, Any], event: Mapping[str, str]) -> str:
        """The job has ended while the task was deferred."""
        with SyncClient(self.api) as client:
            return client.job(event["job_id"]).wait_result(check=True).cid

    def on_kill(self) -> None:
        """Stop the job with the task."""
        if self.job_id is not None:
            with SyncClient(self.api) as client:
                client.job(self.job_id).cancel("its task was stopped")


class JobEnded(BaseTrigger):  # type: ignore[misc]
    """Fires when the job has ended, however."""

    def __init__(self, *, job_id: str, api: str | None) -> None:
        super().__init__()
        self.job_id = job_id
        self.api = api

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.JobEnded", {"job_id": self.job_id, "api": self.api}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        with suppress(BacalhauError):  # `resume` meets it again, and fails the task
            async with Client(self.api) as client:
                await (await client.job(self.job_id)).wait()
        yield TriggerEvent({"job_id": self.job_id})
