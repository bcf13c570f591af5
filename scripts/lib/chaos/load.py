"""Users: submit jobs, wait for them, and compare the results with what they must be."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from bacalhau_p2p.client.client import Client
from bacalhau_p2p.client.jobs import JobHandle
from bacalhau_p2p.errors import ApiError, BacalhauError, ContentError, UnknownJob
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.runtime.events import BroadcastEvent

RETRY_DELAY = 0.3
FETCH_TIMEOUT = 60.0


@dataclass
class Submission:
    """One job of a user."""

    token: str
    kind: str
    spec: Mapping[str, Any]
    expected: Mapping[str, bytes | None]
    """The files of the results folder by their paths in it. None stands for any content."""
    handle: JobHandle | None = None
    """Once the submission was answered."""
    repeats: int = 0
    """How often it was repeated because the answer was lost."""
    job: Job | None = None
    """The job when it had ended."""
    lost: str = ""
    """The error if its requester does not know it any more."""
    mismatch: str = ""
    """What is wrong with its results."""
    executions: int = 0
    fetched: bool = False

    @property
    def job_id(self) -> str:
        """Empty until the submission was answered."""
        return self.handle.id if self.handle is not None else ""


class Jobs:
    """The jobs that users submit, from a seed."""

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
        spec, expected = getattr(self, f"_{kind}")(text)
        token = f"chaos-{self._number}-{self._rng.getrandbits(64):x}"
        expected = {"exitCode": b"0", "stderr": b"", **expected}
        return Submission(token, kind, {"Name": token, **spec}, expected)

    def _noop(self, text: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        task = {"Engine": {"Type": "noop", "Params": {"Stdout": text}}}
        return {"Count": self._rng.choice((1, 1, 2)), "Tasks": [task]}, {"stdout": text.encode()}

    def _wasm(self, text: str) -> tuple[dict[str, Any], dict[str, bytes | None]]:
        verb: list[str] = ["say", text, ""]
        expected: bytes | None = text.encode()
        if self._rng.random() < 0.3:
            verb, expected = ["doze", str(self._rng.randint(1, 3))], None  # prints how long it took
        engine = {"Type": "wasm", "Params": {"EntryModule": "/app/probe.wasm", "Parameters": verb}}
        source = {"Target": "/app/probe.wasm", "Source": {"Type": "ipfs", "Params": {"CID": self._module}}}
        task = {"Engine": engine, "InputSources": [source], "Resources": {"Memory": "64mb"}}
        return {"Count": self._rng.choice((1, 1, 2)), "Tasks": [task]}, {"stdout": expected}

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
    """Submit at a steady pace, whatever happens to the requester."""

    def __init__(self, client: Client, jobs: Jobs) -> None:
        self._client = client
        self._jobs = jobs
        self.submissions: list[Submission] = []
        self.answered = BroadcastEvent()
        """Fired whenever a submission is answered."""

    @property
    def ended(self) -> int:
        return sum(s.job is not None for s in self.submissions)

    async def submit(self, apart: float, nursery: trio.Nursery) -> None:
        """Submit a job every `apart` seconds, and follow each to its end in the nursery. Until cancelled."""
        due = trio.current_time()
        while True:
            submission = self._jobs.next()
            self.submissions.append(submission)
            nursery.start_soon(self._follow, submission)
            due += apart
            await trio.sleep_until(due)

    async def _follow(self, submission: Submission) -> None:
        while submission.handle is None:
            try:
                submission.handle = await self._client.submit(
                    submission.spec, idempotency_token=submission.token
                )
            except ApiError:
                submission.repeats += 1
                await trio.sleep(RETRY_DELAY)
        self.answered.fire()
        while submission.job is None and not submission.lost:
            try:
                submission.job = await submission.handle.wait()
            except UnknownJob as error:
                submission.lost = str(error)
            except ApiError:
                await trio.sleep(RETRY_DELAY)

    async def wait(self, patience: float) -> None:
        """Returns when every job has ended, or after `patience` seconds."""
        with trio.move_on_after(patience):
            while any(s.job is None and not s.lost for s in self.submissions):  # noqa: ASYNC110
                await trio.sleep(0.2)

    async def fetch_all(self, folder: Path) -> None:
        """Fetch the results of every completed job, and note what is wrong with them."""
        limit = trio.CapacityLimiter(4)

        async def fetch(submission: Submission) -> None:
            async with limit:
                submission.mismatch = await self._check(submission, folder / submission.token)

        async with trio.open_nursery() as nursery:
            for submission in self.submissions:
                if submission.job is not None and submission.job.state is JobState.COMPLETED:
                    nursery.start_soon(fetch, submission)

    async def _check(self, submission: Submission, target: Path) -> str:
        assert submission.handle is not None
        try:
            submission.executions = len(await submission.handle.executions())
            with trio.fail_after(FETCH_TIMEOUT):
                await (await submission.handle.wait_result()).fetch(target)
        except (BacalhauError, ContentError) as error:
            return f"fetch failed: {error}"
        except trio.TooSlowError:
            return f"not fetched within {FETCH_TIMEOUT:g} s"
        submission.fetched = True
        found = _files(target)
        same = found.keys() == submission.expected.keys() and all(
            content in (None, found[name]) for name, content in submission.expected.items()
        )
        return "" if same else f"{found} instead of {submission.expected}"


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
