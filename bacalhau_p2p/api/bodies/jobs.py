"""Jobs, executions and results."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bacalhau_p2p.api.bodies.base import Body, Page
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.model.usage import Usage


class Submission(Body):
    """A job to run. Whatever else Bacalhau's clients send is ignored."""

    job: JobSpec
    idempotency_token: str = Field(
        default="", max_length=256, description="The same token returns the same job."
    )
    left_out: list[str] = Field(
        default=[], description="What is missing in inputs that were added for it; told in the history."
    )


class Rerun(Body):
    """Nothing that matters."""

    job_version: Any = None
    reason: Any = None


class Stop(Body):
    reason: str = Field(default="", description="Kept with the job, up to 1000 characters.")


class Evaluation(Body):
    evaluation_id: str = Field(description="Means nothing here.")


class Submitted(Evaluation):
    job_id: str
    warnings: list[str] | None = None


class RerunSubmitted(Submitted):
    job_version: int


class Difference(Body):
    diff: str = Field(description="Lines that begin with + or -; empty if nothing differs.")
    warnings: list[str] | None = None


class JobStateBody(Body):
    state_type: JobState
    message: str


class JobBody(JobSpec):
    """A job: what was submitted, and what became of it. `Timeouts` are whole seconds, rounded up."""

    id: str
    state: JobStateBody
    requester_id: str = Field(description="The peer id of the node that it was submitted to.")
    create_time: int = Field(description="Nanoseconds since 1970.")
    modify_time: int = Field(description="Nanoseconds since 1970.")
    version: int = Field(description="Always 1.")
    revision: int


class DesiredState(Body):
    state_type: int = Field(description="0 pending, 1 running, 2 stopped.")
    message: str


class ExecutionStateBody(Body):
    state_type: int = Field(description="Bacalhau's number for the state.", ge=0, le=11)
    state: ExecutionState
    message: str


class RunOutputBody(Body):
    """How a run ended, with the first 2 KiB of both streams."""

    exit_code: int
    stdout: str
    stdout_truncated: bool
    stderr: str = Field(alias="stderr")
    stderr_truncated: bool
    error_msg: str


class LocationBody(Body):
    type: str = Field(description="The publisher; empty if nothing is published.")
    params: dict[str, Any]


class ExecutionBody(Body):
    """One attempt at a job on one node."""

    id: str
    namespace: str
    eval_id: str
    name: str
    node_id: str
    job_id: str
    job_version: int
    allocated_resources: dict[str, Any]
    desired_state: DesiredState
    compute_state: ExecutionStateBody
    published_result: LocationBody
    run_output: RunOutputBody | None = Field(description="Null before the run has ended.")
    previous_execution: str
    next_execution: str
    followup_eval_id: str = Field(alias="FollowupEvalID")
    partition_index: int = Field(description="Which partition of the job it does; 0 if it is not divided.")
    partition_count: int = Field(
        default=1, description="Into how many partitions the job is divided, once its bid is accepted."
    )
    slot: int | None = Field(
        default=None, description="Which of the job's executions it is, once its bid is accepted."
    )
    revision: int
    create_time: int = Field(description="Nanoseconds since 1970.")
    modify_time: int = Field(description="Nanoseconds since 1970.")
    walls: list[str] = Field(description="What kept the run from the rest of the node's machine.")
    result_cid: str = Field(description="What the node proposed; empty if it has not.")
    input_bytes: int = Field(default=0, description="Bytes of the inputs, as the node knew when it bid.")
    local_input_bytes: int = Field(default=0, description="Those of them that it had already.")
    failed_result_cid: str = Field(
        default="", description="What it left before it failed, kept for a day if its job asks for that."
    )
    usage: Usage | None = Field(default=None, description="What it used, as far as its node measured it.")


class ExecutionPage(Page):
    items: list[ExecutionBody]


class ListedJob(JobBody):
    executions: ExecutionPage | None = Field(default=None, description="With `include=executions`.")


class JobPage(Page):
    items: list[ListedJob]


class EventBody(Body):
    message: str = Field(description="For people to read.")
    topic: str = Field(description="Bacalhau's word for what it is about.")
    timestamp: str
    details: dict[str, str] = Field(description="`NewState`, `NodeID`, `IsError`.")


class JobHistoryItem(Body):
    """One event in the history of a job."""

    seq_num: int = Field(description="Counts from 1, without a gap.")
    type: Literal["JobLevel", "ExecutionLevel"]
    job_id: str
    job_version: int
    execution_id: str = ""
    kind: EventKind
    event: EventBody
    time: str


class FeedItem(JobHistoryItem):
    """One event of some job. One of the kind `Omitted` without a job tells what is missing."""

    position: int = Field(default=0, description="Its place among the events of all jobs.")


class FeedPageBody(Page):
    """`NextToken` is what to give as `after` next."""

    items: list[FeedItem]


class JobHistoryPage(Page):
    """`NextToken` is empty when the job has ended and no event follows."""

    items: list[JobHistoryItem]


class LogPieceBody(Body):
    """Some bytes of a stream. The response has one on each line."""

    execution_id: str
    stream: Literal["stdout", "stderr"]
    offset: int = Field(description="Where in the stream they begin.")
    text: str = Field(default="", description="The bytes, if they are UTF-8.")
    data: str = Field(default="", description="The bytes in base64, if they are not.")


class JobAnswer(Body):
    job: JobBody
    executions: ExecutionPage | None = Field(default=None, description="With `include=executions`.")
    history: JobHistoryPage | None = Field(default=None, description="With `include=history`.")


class ResultParams(Body):
    """More keys depend on the publisher."""

    url: str = Field(description="A gzipped TAR at this node.")
    cid: str
    providers: list[str] = Field(default=[], description="Multiaddrs of peers that have it.")


class ResultBody(Body):
    type: str = Field(description="Always `urlDownload`.")
    params: ResultParams
    location: LocationBody = Field(description="Where it is published.")


class ResultPage(Page):
    items: list[ResultBody]
