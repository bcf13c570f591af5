"""What plug-ins of workflow systems ask of Bacalhau works with a node.

Each test makes the calls of a plug-in: npow/metaflow-bacalhau, which uses Bacalhau's SDK,
shukwong/nf-bacalhau, which uses the command line, and the operator for Airflow in examples/.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.networks.forked_commands import COMMAND
from tests.support.networks.networks import REPOSITORY, devstack

pytestmark = pytest.mark.network

METAFLOW = """
import json, time
from bacalhau_apiclient.models.api_put_job_request import ApiPutJobRequest
from bacalhau_apiclient.models.job import Job
from bacalhau_apiclient.models.resources_config import ResourcesConfig
from bacalhau_apiclient.models.spec_config import SpecConfig
from bacalhau_apiclient.models.task import Task
from bacalhau_sdk.jobs import Jobs

def put(name, command):
    engine = SpecConfig(type="docker", params={
        "Image": "busybox:latest", "Entrypoint": ["/bin/sh"], "Parameters": ["-c", command],
        "EnvironmentVariables": ["METAFLOW_CODE_DS=s3", "METAFLOW_RUNTIME_ENVIRONMENT=bacalhau"],
    })
    task = Task(name="metaflow-step", engine=engine, publisher=SpecConfig(),
                resources=ResourcesConfig(cpu="0.1", memory="100Mb", gpu="0"))
    job = Job(name=name, type="batch", count=1, tasks=[task], labels={"metaflow.flow": "Hello"})
    return jobs.put(ApiPutJobRequest(job=job)).job_id

def end_of(job_id):
    for _ in range(1200):
        for execution in jobs.executions(job_id, limit=10).items:
            if str(execution.compute_state.state_type) in ("9", "10", "11"):
                return execution
        time.sleep(0.1)

jobs = Jobs()
done = end_of(put("mf-hello-start-1-1", "echo $METAFLOW_CODE_DS; echo $BACALHAU_JOB_ID >&2"))
failed = end_of(put("mf-hello-start-1-2", "echo broken >&2; exit 7"))
killed = put("mf-hello-start-1-3", "sleep 1000")
jobs.stop(killed, reason="Metaflow kill request")
print(json.dumps({
    "done": [str(done.compute_state.state_type), done.run_output.stdout],
    "names_its_job": done.run_output.stderr.strip() == done.job_id,
    "failed": [failed.run_output.exit_code, failed.run_output.stderr],
    "killed": jobs.get(killed).job.state.state_type,
}))
"""


@pytest.mark.docker
@pytest.mark.usefixtures("docker_client")
def test_metaflow(tmp_path: Path):
    pytest.importorskip("bacalhau_sdk", reason="scripts/setup --test installs it")
    with devstack("--compute-nodes", "1", folder=tmp_path) as (network, _):
        network.wait_for_compute_nodes(1)
        address = {"BACALHAU_API_HOST": "127.0.0.1", "BACALHAU_API_PORT": str(network.port)}
        done = subprocess.run(
            [sys.executable, "-c", METAFLOW],
            env={**os.environ, **address, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said.pop("names_its_job")
    assert said == {"done": ["9", "s3\n"], "failed": [7, "broken\n"], "killed": "Stopped"}


NEXTFLOW = """
Name: nf-hello
Type: batch
Count: 1
Tasks:
  - Name: main
    Engine:
      Type: docker
      Params:
        Image: busybox:latest
        Entrypoint: [sh, -c, "cd {work} && sh .command.sh > .command.out; echo $? > .exitcode"]
    InputSources:
      - Source: {{Type: localDirectory, Params: {{SourcePath: {work}, ReadWrite: true}}}}
        Target: {work}
    Resources: {{CPU: "0.1", Memory: 100mb}}
    Timeouts: {{ExecutionTimeout: 300}}
"""


@pytest.mark.docker
@pytest.mark.usefixtures("docker_client")
def test_nextflow(tmp_path: Path):
    work = tmp_path / "work"
    work.mkdir()
    work.chmod(0o777)
    (work / ".command.sh").write_text("echo hello from a task\n")
    spec = tmp_path / "job.yaml"
    spec.write_text(NEXTFLOW.format(work=work))
    flags = ("--compute-nodes", "1", "--allow-local-path", f"{work}:rw")
    with devstack(*flags, folder=tmp_path) as (network, _):
        network.wait_for_compute_nodes(1)
        assert network.cli("version").returncode == 0
        submitted = network.cli("job", "run", "--api-host", "127.0.0.1", spec)
        assert submitted.returncode == 0, submitted.stderr
        job_id = first_uuid(submitted.stdout)
        network.get(f"/api/v1/orchestrator/jobs/{job_id}?wait=120")
        listed = json.loads(network.cli("job", "list", "--output", "json", "--limit", "1000").stdout)
        assert {job["ID"]: job["State"]["StateType"] for job in listed} == {job_id: "Completed"}
        fetched = network.cli("job", "get", job_id, "--output-dir", work)
        assert fetched.returncode == 0, fetched.stderr
        assert network.cli("job", "stop", job_id).returncode in (0, 1)  # an ended job: only a warning there
    assert (work / ".command.out").read_text() == "hello from a task\n"
    assert (work / ".exitcode").read_text() == "0\n"
    assert (work / "exitCode").read_text() == "0"


def first_uuid(text: str) -> str:
    found = re.search(r"[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}", text)
    assert found, text
    return found[0]


AIRFLOW = {
    "airflow/__init__.py": "",
    "airflow/sdk.py": """
import logging

class Deferred(BaseException):
    pass

class BaseOperator:
    def __init__(self, *, task_id):
        self.task_id, self.log = task_id, logging.getLogger("task")

    def defer(self, *, trigger, method_name):
        self.deferred = trigger, method_name
        raise Deferred
""",
    "airflow/triggers/__init__.py": "",
    "airflow/triggers/base.py": """
class BaseTrigger:
    pass

class TriggerEvent:
    def __init__(self, payload):
        self.payload = payload
""",
}
"""As much of Airflow as the operator uses, for a test that installs nothing."""

OPERATOR = """
import asyncio, logging, sys
from types import SimpleNamespace
from airflow.sdk import Deferred
from airflow_operator import BacalhauOperator, JobEnded
from bacalhau_p2p import JobFailed, SyncClient

logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
def context(task, attempt=1):
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id=task, map_index=-1, try_number=attempt)
    return {"ti": ti}

async def event_of(trigger):
    async for event in trigger.run():
        return event.payload

def job(**params):
    return {"Tasks": [{"Engine": {"Type": "noop", "Params": params}}]}

waits = BacalhauOperator(task_id="waits", job=job(Stdout="hello"))
first = waits.execute(context("waits"))
defers = BacalhauOperator(task_id="defers", job=job(Stdout="hello"), deferrable=True)
try:
    defers.execute(context("defers"))
except Deferred:
    trigger, method = defers.deferred
    name, arguments = trigger.serialize()
    event = asyncio.run(event_of(JobEnded(**arguments)))
    print("same result", getattr(defers, method)(context("defers"), event) == first)
again = BacalhauOperator(task_id="waits", job=job(Stdout="hello"))
again.execute(context("waits"))
print("same job", again.job_id == waits.job_id)
try:
    BacalhauOperator(task_id="fails", job=job(ExitCode=3)).execute(context("fails"))
except JobFailed as error:
    print("fails:", "exit code 3" in str(error))
again.on_kill()
"""


def test_the_operator_for_airflow(tmp_path: Path):
    for name, text in AIRFLOW.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "airflow_operator.py").symlink_to(REPOSITORY / "examples" / "airflow_operator.py")
    done = run_program(OPERATOR, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "hello\n" in done.stdout
    assert re.findall(r"^(?:same|fails).*", done.stdout, re.MULTILINE) == [
        "same result True",
        "same job True",
        "fails: True",
    ]


def run_program(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program beside a network that runs jobs of the engine `noop`."""
    words = [
        COMMAND,
        "devstack",
        "--compute-nodes",
        "1",
        "--engine",
        "noop",
        "--",
        sys.executable,
        "-c",
        program,
    ]
    return subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}:{REPOSITORY}", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
