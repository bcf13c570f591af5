"""Users: submit jobs, wait for them, and compare what they fetch with what it must be."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from bacalhau_p2p.client.client import Client
from bacalhau_p2p.client.jobs import Result
from bacalhau_p2p.errors import ApiError, BacalhauError, ContentError, UnknownJob
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.model.state import JobState

ASK_AGAIN = 0.3
FETCH_WITHIN = 60.0


@dataclass
class Submission:
    """One job of a user."""

    token: str
    kind: str
    spec: Mapping[str, Any]
    wanted: Mapping[str, bytes | None]
    """Files of the results folder, by their paths in it; None where anything will do."""
    job_id: str = ""
    """Once the submission was answered."""
    repeats: int = 0
    """Times that it was said again because the answer was lost."""
    job: Job | None = None
    """As it ended."""
    lost: str = ""
    """Why its requester knows nothing of it."""
    fault: str = ""
    """What is wrong with its results."""
    executions: int = 0
    fetched: bool = False


class Jobs:
    """What users submit, from a seed."""

    def __init__(self, rng: random.Random, engines: tuple[str, ...], module: str) -> None:
        """`module` is the CID of the wasm probe."""
        self._rng = rng
        self._engines = engines
        self._module = module
        self._number = 0

    def next(self) -> Submission:
        self._number += 1
        kind = self._rng.choice(self._engines)
        text = f"{kind} {self._number} {self._rng.getrandbits(64):x}"
        spec, wanted = getattr(self, f"_{kind}")(text)
        token = f"chaos-{self._number}-{self._rng.getrandbits(64):x}"
        wanted = {"exitCode": b"0", "stderr": b"", **wanted}
        return Submission(token, kind, {"Name": token, **spec}, wanted)

    def _noop(self, text: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        task = {"Engine": {"Type": "noop", "Params": {"Stdout": text}}}
        return {"Count": self._rng.choice((1, 1, 2)), "Tasks": [task]}, {"stdout": text.encode()}

    def _wasm(self, text: str) -> tuple[dict[str, Any], dict[str, bytes | None]]:
        verb: list[str] = ["say", text, ""]
        wanted: bytes | None = text.encode()
        if self._rng.random() < 0.3:
            verb, wanted = ["doze", str(self._rng.randint(1, 3))], None  # says how long it took
        engine = {"Type": "wasm", "Params": {"EntryModule": "/app/probe.wasm", "Parameters": verb}}
        source = {"Target": "/app/probe.wasm", "Source": {"Type": "ipfs", "Params": {"CID": self._module}}}
        task = {"Engine": engine, "InputSources": [source], "Resources": {"Memory": "64mb"}}
        return {"Count": self._rng.choice((1, 1, 2)), "Tasks": [task]}, {"stdout": wanted}

    def _docker(self, text: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        seconds = self._rng.choice((0, 0.5, 2, 4, 8))
        script = f"echo begun; sleep {seconds}; echo '{text}' >> /outputs/ran; echo '{text}'"
        engine = {
            "Type": "docker",
            "Params": {"Image": "busybox:latest", "Entrypoint": ["sh", "-c", script]},
        }
        task = {
            "Engine": engine,
            "ResultPaths": [{"Name": "outputs", "Path": "/outputs"}],
            "Resources": {"CPU": "0.1", "Memory": "32mb"},
        }
        line = f"{text}\n".encode()
        return {"Tasks": [task]}, {"stdout": b"begun\n" + line, "outputs/ran": line}


class Users:
    """Submit at a steady pace, whatever happens to the requester meanwhile."""

    def __init__(self, client: Client, jobs: Jobs) -> None:
        self._client = client
        self._jobs = jobs
        self.submissions: list[Submission] = []
        self.answered = trio.Event()
        """Set, and made anew, whenever a submission was answered."""

    @property
    def ended(self) -> int:
        return sum(s.job is not None for s in self.submissions)

    async def submit(self, apart: float, nursery: trio.Nursery) -> None:
        """Until cancelled: one job every `apart` seconds, each watched to its end in the nursery."""
        due = trio.current_time()
        while True:
            submission = self._jobs.next()
            self.submissions.append(submission)
            nursery.start_soon(self._follow, submission)
            due += apart
            await trio.sleep_until(due)

    async def _follow(self, submission: Submission) -> None:
        while not submission.job_id:
            try:
                handle = await self._client.submit(submission.spec, idempotency_token=submission.token)
                submission.job_id = handle.id
            except ApiError:
                submission.repeats += 1
                await trio.sleep(ASK_AGAIN)
        self.answered.set()
        self.answered = trio.Event()
        while submission.job is None and not submission.lost:
            try:
                job = await self._client.backend.wait(submission.job_id, None)  # type: ignore[arg-type]
                submission.job = job if job.state.terminal else None
            except UnknownJob as error:
                submission.lost = str(error)
            except ApiError:
                await trio.sleep(ASK_AGAIN)

    async def wait(self, patience: float) -> None:
        """Until every job has ended, or for `patience` seconds."""
        with trio.move_on_after(patience):
            while any(s.job is None and not s.lost for s in self.submissions):  # noqa: ASYNC110
                await trio.sleep(0.2)

    async def fetch_all(self, folder: Path) -> None:
        """Fetch the results of every job that completed, and say in each what is wrong with them."""
        limit = trio.CapacityLimiter(4)

        async def fetch(submission: Submission) -> None:
            async with limit:
                submission.fault = await self._check(submission, folder / submission.token)

        async with trio.open_nursery() as nursery:
            for submission in self.submissions:
                if submission.job is not None and submission.job.state is JobState.COMPLETED:
                    nursery.start_soon(fetch, submission)

    async def _check(self, submission: Submission, target: Path) -> str:
        job = submission.job
        assert job is not None
        try:
            executions = await self._client.backend.executions(job.id)
            submission.executions = len(executions)
            with trio.fail_after(FETCH_WITHIN):
                await Result(self._client.backend, job, executions).fetch(target)
        except (BacalhauError, ContentError) as error:
            return f"cannot be fetched: {error}"
        except trio.TooSlowError:
            return f"cannot be fetched within {FETCH_WITHIN:g} s"
        submission.fetched = True
        found = _files(target)
        same = found.keys() == submission.wanted.keys() and all(
            wanted in (None, found[name]) for name, wanted in submission.wanted.items()
        )
        return "" if same else f"{found} instead of {submission.wanted}"


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
