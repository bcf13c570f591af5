"""`job executions` and `job rerun`, with a fake node."""

from __future__ import annotations

import json

from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.usage import Usage

ID = "095be3fd-7c4e-4b6f-9d2e-000000000001"


def test_the_attempts_at_a_job_are_listed(run, fake_node, results):
    fake_node.add_job(ID)
    cid = fake_node.complete(ID, results, RunOutput(exit_code=3))
    header, row = run("job", "executions", "095be").stdout.splitlines()
    assert header.split() == ["CREATED", "MODIFIED", "ID", "NODE", "STATE", "EXIT", "RESULT"]
    assert row.split()[-3:] == ["Completed", "3", str(cid)]
    assert str(cid) in run("executions", "-o", "csv", ID).stdout
    assert json.loads(run("executions", "-o", "json", ID).stdout)[0]["ID"] == f"e-{ID}"
    assert run("executions", "-o", "id", ID).stdout == f"e-{ID}\n"


def test_what_attempts_used_is_listed_if_there_is_room(run, fake_node, results):
    fake_node.add_job(ID)
    fake_node.complete(ID, results)
    (completed,) = fake_node.executions[ID]
    used = Usage(cpu_seconds=1.5, peak_memory=61_000_000, input_bytes_local=5, result_bytes=7)
    proposal = completed.proposal.replace(usage=used)
    fake_node.executions[ID] = [completed.replace(proposal=proposal)]
    assert "1.5 s of CPU, 61 MB of memory, 5 bytes in, 7 bytes out" in run("executions", "--wide", ID).stdout
    assert "USED" not in run("executions", ID).stdout


def test_a_job_is_run_again_as_another(run, fake_node):
    fake_node.add_job(ID)
    again = run("rerun", "--id-only", ID).stdout.strip()
    assert again != ID
    assert fake_node.jobs[again].spec == fake_node.jobs[ID].spec


def test_a_job_that_is_run_again_is_waited_for(run, fake_node, results):
    fake_node.add_job(ID)
    fake_node.on_submit = lambda job: fake_node.complete(
        job.id, results, RunOutput(exit_code=3, stdout=b"hi")
    )
    result = run("rerun", ID)
    assert (result.exit_code, result.stdout.splitlines()[1:]) == (3, ["hi"])
    assert "exit code: 3" in result.stderr


def test_a_job_can_be_shown_before_it_is_run_again(run, fake_node):
    fake_node.add_job(ID)
    assert "Type: noop" in run("rerun", "--dry-run", ID).stdout
    assert list(fake_node.jobs) == [ID]
