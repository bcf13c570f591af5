"""`list`, `describe`, `get` and `cancel`, with a fake node: `cli.jobs` and `cli.results`."""

from __future__ import annotations

import json
import re
from datetime import datetime
from unittest.mock import ANY

import pytest
import yaml

from bacalhau_p2p.cli import jobs
from bacalhau_p2p.cli import results as results_module
from bacalhau_p2p.cli.results import folder_name
from bacalhau_p2p.ipfs.files.importer import cid_of
from bacalhau_p2p.ipfs.format.cid import CID, DAG_PB, RAW
from bacalhau_p2p.ipfs.format.dag_pb import PBLink, encode_block, encode_directory, encode_file
from bacalhau_p2p.model.api_json import execution_to_json, job_to_json
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.model.usage import Usage
from tests.support.servers import fake_node as fake

ID = "095be3fd-7c4e-4b6f-9d2e-000000000001"
OTHER = "09f00000-7c4e-4b6f-9d2e-000000000002"
DOCKER = {
    "Tasks": [
        {"Engine": {"Type": "docker", "Params": {"Image": "busybox:latest", "Parameters": ["sh", "-c"]}}}
    ]
}


class Today(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 22, 20, 0, 0)


@pytest.fixture(autouse=True)
def today(monkeypatch):
    monkeypatch.setattr(jobs, "datetime", Today)


def local(hour: int, minute: int, second: int) -> float:
    return datetime(2026, 11, 22, hour, minute, second).timestamp()


def test_list_prints_the_table_of_bacalhau(run, fake_node, results):
    fake_node.add_job(ID, DOCKER, created=local(18, 59, 25))
    cid = str(fake_node.complete(ID, results))
    result = run("list", "--id-filter", ID)
    assert result.exit_code == 0
    header, row = result.stdout.splitlines()
    assert header.split() == [
        "CREATED", "ID", "NAME", "STATE", "TIME", "NODES", "VERIFIED", "JOB", "PUBLISHED",
    ]  # fmt: skip
    assert row.split("  ")[:2] == [" 18:59:25", "095be3fd"]
    assert row.split()[2:] == [
        *("Completed", "0.0", "s"),
        *(fake.NODE[-8:], "Docker", "busybox:latest", "sh", "-c", f"ipfs://{cid}"),
    ]


def test_list_shows_the_newest_jobs_first(run, fake_node):
    for number in range(12):
        fake_node.add_job(f"{number:08d}", created=local(1, 0, number))

    def ids(*flags: str) -> list[str]:
        return [line.split()[1] for line in run("list", *flags).stdout.splitlines()[1:]]

    assert ids() == [f"{number:08d}" for number in range(11, 1, -1)]
    assert ids("-n", "2") == ["00000011", "00000010"]
    assert ids("--id-filter", "00000003") == ["00000003"]
    assert ids("--id-filter", "f") == []


def test_a_wide_list_is_not_shortened(run, fake_node, results):
    fake_node.add_job(ID, DOCKER)
    cid = fake_node.complete(ID, results)
    row = run("list", "--wide").stdout.splitlines()[1]
    assert ID in row
    assert "Docker busybox:latest sh -c" in row
    assert f"ipfs://{cid}" in row


def test_list_as_json_is_the_response_of_the_node(run, fake_node):
    job = fake_node.add_job(ID)
    listed = {**job_to_json(job), "Executions": {"Items": []}}
    assert json.loads(run("list", "--output", "json").stdout) == [listed]


def test_describe_shows_the_job_its_executions_and_their_messages(run, fake_node, results):
    fake_node.add_job(ID, DOCKER)
    fake_node.complete(ID, results, RunOutput(exit_code=3, stdout="grüße\n".encode()))
    lost = fake_node.executions[ID][0].replace(
        state=ExecutionState.FAILED, message="no such image", proposal=None, published=None
    )
    fake_node.executions[ID].append(lost)
    fake_node.tell(ID, EventKind.SUBMITTED, "submitted", "Pending")
    shown = yaml.safe_load(run("describe", "095be").stdout)
    assert [entry.split() for entry in shown["History"]] == [[ANY, "Submitted"]]
    assert shown["Job"]["ID"] == ID
    assert shown["Job"]["State"]["StateType"] == "Completed"
    assert shown["Executions"][0]["RunOutput"]["Stdout"] == "grüße\n"
    assert "    Stdout: |\n      grüße\n" in run("describe", ID).stdout
    assert shown["Executions"][1]["ComputeState"] == {"State": "Failed", "Message": "no such image"}
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown["Job"]["CreateTime"])
    exact = json.loads(run("describe", ID, "--output", "json").stdout)
    assert exact["History"]["Items"][0]["Kind"] == "Submitted"
    assert exact["Job"] == job_to_json(fake_node.jobs[ID])
    assert exact["Executions"]["Items"][1] == execution_to_json(lost)


def test_get_writes_the_results_and_prints_where(run, fake_node, results, tmp_path):
    fake_node.add_job(ID, DOCKER)
    cid = fake_node.complete(ID, results)
    result = run("get", ID)
    folder = tmp_path / "job-095be3fd"
    assert result.stdout == (
        f"Fetching results of job '095be3fd'...\nResult: ipfs://{cid}\n"
        f"Results for job '095be3fd' have been written to {folder}\n"
    )  # fmt: skip
    assert cid_of(folder) == cid_of(results)
    again = run("get", ID)
    assert (again.exit_code, again.stderr) == (
        1,
        "Error: job-095be3fd/exitCode already exists; choose another path with --output-dir\n",
    )


def test_get_shows_an_exit_code_that_is_not_0(run, fake_node, results, tmp_path):
    fake_node.add_job(ID)
    fake_node.complete(ID, results, RunOutput(exit_code=7))
    result = run("get", ID)
    assert (result.exit_code, result.stderr) == (0, "exit code: 7\n")


def test_get_writes_to_a_new_or_empty_folder(run, fake_node, results, tmp_path):
    fake_node.add_job(ID, DOCKER)
    fake_node.complete(ID, results)
    (tmp_path / "empty").mkdir()
    for name in ("new/deeper", "empty"):
        assert run("get", "095be", "--output-dir", name).exit_code == 0
        assert cid_of(tmp_path / name) == cid_of(results)


def test_get_adds_the_results_to_a_folder_in_use(run, fake_node, results, tmp_path):
    fake_node.add_job(ID, DOCKER)
    fake_node.complete(ID, results)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine").write_text("mine")
    assert run("get", ID, "--output-dir", "used").exit_code == 0
    assert (tmp_path / "used" / "stdout").read_bytes() == (results / "stdout").read_bytes()
    assert (tmp_path / "used" / "mine").read_text() == "mine"


def test_different_results_are_written_side_by_side(run, fake_node, results, tmp_path):
    fake_node.add_job(ID, {**DOCKER, "Count": 2})
    first = fake_node.complete(ID, results)
    (results / "stdout").write_bytes(b"other\n")
    second = fake_node.complete(ID, results)
    assert run("get", ID).exit_code == 0
    assert (tmp_path / "job-095be3fd" / str(first) / "stdout").read_bytes() == b"hello\n"
    assert (tmp_path / "job-095be3fd" / str(second) / "stdout").read_bytes() == b"other\n"


def test_all_writes_a_folder_per_execution_and_raw_a_folder_per_cid(run, fake_node, results, tmp_path):
    fake_node.add_job(ID, {**DOCKER, "Count": 2})
    cid = fake_node.complete(ID, results)
    second = fake_node.executions[ID][0].replace(id="../e-2")
    fake_node.executions[ID].append(second)
    assert run("get", ID, "--all", "--output-dir", "each").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "each").iterdir()) == ["___e-2", f"e-{ID}"]
    assert cid_of(tmp_path / "each" / f"e-{ID}") == cid_of(tmp_path / "each" / "___e-2") == cid
    assert run("get", ID, "--raw").exit_code == 0
    assert [path.name for path in (tmp_path / "job-095be3fd").iterdir()] == [str(cid)]
    assert run("get", ID, "--output-dir", "once").exit_code == 0
    assert cid_of(tmp_path / "once") == cid


def test_get_writes_the_result_of_each_node_of_an_ops_job_and_says_which_are_missing(
    run, fake_node, results, tmp_path
):
    fake_node.add_job(ID, {**DOCKER, "Type": "ops"})
    fake_node.complete(ID, results)
    (first,) = fake_node.executions[ID]
    fake_node.executions[ID].append(first.replace(id="e-2", node_id="12D3KooWb"))
    message = "2 of 3 nodes gave a result; c: lost contact"
    fake_node.jobs[ID] = fake_node.jobs[ID].replace(state=JobState.FAILED, message=message)
    outcome = run("get", ID, "--output-dir", "nodes")
    assert outcome.exit_code == 1
    assert message in outcome.stderr
    assert sorted(path.name for path in (tmp_path / "nodes").iterdir()) == sorted(
        [first.node_id, "12D3KooWb"]
    )


def test_get_writes_the_result_of_each_partition(run, fake_node, results, tmp_path):
    fake_node.add_job(ID, {**DOCKER, "Count": 2})
    fake_node.complete(ID, results)
    (first,) = fake_node.executions[ID]
    fake_node.executions[ID] = [first.replace(slot=0), first.replace(id="e-2", slot=1)]
    assert run("get", ID, "--output-dir", "parts").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["partition-0", "partition-1"]


def two_partitions(fake_node, results, *names: str) -> None:
    """Makes a job with two partitions, each with a file of its own name in its outputs."""
    fake_node.add_job(ID, {**DOCKER, "Count": 2})
    (results / "outputs" / "data.bin").unlink()
    for slot, name in enumerate(names):
        (results / "outputs" / name).write_text(name)
        fake_node.complete(ID, results)
        (results / "outputs" / name).unlink()
        latest = fake_node.executions[ID][slot]
        fake_node.executions[ID][slot] = latest.replace(id=f"e-{slot}", slot=slot)


def test_get_merges_the_outputs_of_all_partitions_by_name(run, fake_node, results, tmp_path):
    two_partitions(fake_node, results, "a.csv", "b.csv")
    assert run("get", ID, "--merge", "--output-dir", "deep/merged").exit_code == 0
    merged = tmp_path / "deep" / "merged"
    assert sorted(path.name for path in merged.iterdir()) == ["outputs", "partition-0", "partition-1"]
    assert sorted(path.name for path in (merged / "outputs").iterdir()) == ["a.csv", "b.csv"]
    assert (merged / "partition-1" / "stdout").read_bytes() == b"hello\n"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["merged"]


def test_executions_of_a_divided_job_show_their_partition(run, fake_node, results):
    two_partitions(fake_node, results, "a.csv", "b.csv")
    heads, first, second = run("job", "executions", ID, "--output", "csv").stdout.splitlines()
    place = heads.split(",").index("PARTITION")
    assert [line.split(",")[place] for line in (first, second)] == ["0", "1"]
    shown = yaml.safe_load(run("describe", ID).stdout)["Executions"]
    assert [(each["PartitionIndex"], each["PartitionCount"]) for each in shown] == [(0, 2), (1, 2)]


def test_executions_of_a_job_that_is_not_divided_show_no_partition(run, fake_node, results):
    fake_node.add_job(ID, DOCKER)
    fake_node.complete(ID, results)
    fake_node.executions[ID][0] = fake_node.executions[ID][0].replace(slot=0)
    assert "PARTITION" not in run("job", "executions", ID).stdout
    (shown,) = yaml.safe_load(run("describe", ID).stdout)["Executions"]
    assert not {"PartitionIndex", "PartitionCount", "Slot"} & shown.keys()


def test_results_with_the_same_file_are_not_merged(run, fake_node, results, tmp_path):
    two_partitions(fake_node, results, "a.csv", "a.csv")
    refused = run("get", ID, "--merge", "--output-dir", "merged")
    assert (refused.exit_code, refused.stderr) == (
        1,
        "Error: cannot merge: partition-0 and partition-1 both have outputs/a.csv; "
        "without --merge each has its folder\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["of-the-node"]


def test_a_single_result_is_merged_with_nothing(run, fake_node, results, tmp_path):
    fake_node.add_job(ID, DOCKER)
    cid = fake_node.complete(ID, results)
    assert run("get", ID, "--merge", "--output-dir", "one").exit_code == 0
    assert cid_of(tmp_path / "one") == cid


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--all", "--merge", ID), "--all and --merge exclude each other"),
        (("--failed", "--merge", ID), "--failed and --merge exclude each other"),
        (("--merge", "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"), "not for CIDs"),
    ],
)
def test_flags_of_get_that_do_not_go_together_are_told(run, flags, told):
    refused = run("get", *flags)
    assert refused.exit_code == 2
    assert told in refused.stderr


@pytest.fixture
def published(fake_node, results, monkeypatch):
    """Makes a completed job whose two executions published this instead of a CID, and then a real result."""

    def make(cid: str) -> str:
        original = fake.execution_to_json

        def altered(execution, *spec):
            item = original(execution, *spec)
            if execution.message == "altered":
                item["ResultCID"] = item["PublishedResult"]["Params"]["CID"] = cid
            return item

        monkeypatch.setattr(fake, "execution_to_json", altered)
        fake_node.add_job(ID, DOCKER)
        real = str(fake_node.complete(ID, results))
        (first,) = fake_node.executions[ID]
        fake_node.executions[ID].insert(0, first.replace(message="altered", id="e-0"))
        return real

    return make


@pytest.mark.parametrize("flags", [(), ("--raw",), ("--all",)])
@pytest.mark.parametrize("cid", ["../../ESCAPED/dir/x", "/ESCAPED", "..", "a/b", "\x1b[2J"])
def test_a_result_that_is_no_cid_makes_no_folder(run, published, tmp_path, flags, cid):
    real = published(cid)
    target = tmp_path / "home" / "user" / "results"
    assert run("get", *flags, ID, "--output-dir", str(target)).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"of-the-node", "home"}
    expected = {"--raw": [real], "--all": [f"e-{ID}"]}
    assert sorted(path.name for path in target.iterdir()) == expected.get(
        "".join(flags), ["exitCode", "outputs", "stderr", "stdout"]
    )


def test_only_cids_are_shown_as_results(run, published):
    real = published("../../ESCAPED")
    assert f"ipfs://{real}" in run("list", "--wide").stdout
    shown = yaml.safe_load(run("describe", ID).stdout)["Executions"]
    assert [item["ResultCID"] for item in shown] == ["not a CID", real]
    assert [item["PublishedResult"]["Params"]["CID"] for item in shown] == ["not a CID", real]


@pytest.mark.parametrize("name", ["../../x", "/etc", "..", "", "a" * 300, "\ud800", "ﬁ/x"])
def test_the_folder_of_an_id_is_below_its_parent(name):
    folder = folder_name(name)
    assert re.fullmatch("[A-Za-z0-9_-]{1,100}", folder)


def lying_folder(leaf: int, width: int) -> tuple[CID, dict[CID, bytes], int]:
    """A folder that claims 10 bytes, and has width * width times one block."""
    content = bytes(leaf)
    cid, size = CID.of(RAW, content), leaf
    blocks = {cid: content}
    for _ in range(2):
        block = encode_block([PBLink(cid, b"", size)] * width, encode_file(size * width, [size] * width))
        cid, size = CID.of(DAG_PB, block), size * width
        blocks[cid] = block
    root = encode_block([PBLink(cid, b"f", 10)], encode_directory())
    return CID.of(DAG_PB, root), {**blocks, CID.of(DAG_PB, root): root}, size


def test_more_than_the_allowed_size_is_not_written_without_a_terminal(run, fake_node, tmp_path):
    root, blocks, size = lying_folder(1024 * 1024, 55)
    fake_node.blocks.update(blocks)
    result = run("get", str(root), "--output-dir", "got")
    assert result.exit_code == 1
    limit = "the limit is 2147483648; to fetch more, use --max-size\n"
    assert result.stderr.endswith(f"has at least {size} bytes; {limit}")
    assert list(tmp_path.iterdir()) == []


def test_the_allowed_size_can_be_set(run, fake_node, tmp_path):
    root, blocks, size = lying_folder(1000, 10)
    fake_node.blocks.update(blocks)
    assert run("get", str(root), "--output-dir", "got", "--max-size", "99kB").exit_code == 1
    assert list(tmp_path.iterdir()) == []
    assert run("get", str(root), "--output-dir", "got", "--max-size", "100kB").exit_code == 0
    assert (tmp_path / "got" / "f").stat().st_size == size
    assert run("get", str(root), "--max-size", "much").exit_code == 2


def test_the_allowed_size_is_that_of_all_results_together(run, fake_node, results, tmp_path):
    fake_node.add_job(ID, {**DOCKER, "Count": 2})
    fake_node.complete(ID, results)
    (results / "stdout").write_bytes(b"other\n")
    fake_node.complete(ID, results)
    assert run("get", ID, "--max-size", "1mb").exit_code == 1
    assert run("get", ID, "--max-size", "2mb", "--output-dir", "both").exit_code == 0


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("", 1)])
def test_a_terminal_is_asked_before_more_is_written(run, fake_node, tmp_path, monkeypatch, answer, status):
    monkeypatch.setattr(results_module, "_is_terminal", lambda: True)
    root, blocks, _ = lying_folder(1000, 10)
    fake_node.blocks.update(blocks)
    result = run("get", str(root), "--output-dir", "got", "--max-size", "1kB", input=answer)
    assert result.exit_code == status
    assert "The content has at least " in result.stderr
    assert (tmp_path / "got").exists() == (status == 0)


@pytest.mark.parametrize(
    ("state", "message", "expected"),
    [
        (
            JobState.RUNNING,
            "",
            "Error: job 095be3fd has no result yet: it is running; `bacalhau-p2p logs --follow 095be3fd` "
            "shows what it does until it has ended\n",
        ),
        (JobState.FAILED, "no image\nfound", "Error: no image found (job 095be3fd failed)\n"),
        (JobState.STOPPED, "", "Error: no reason given (job 095be3fd stopped)\n"),
        (JobState.COMPLETED, "", "Error: job 095be3fd has no published result\n"),
    ],
)
def test_get_of_a_job_without_a_result_says_why(run, fake_node, tmp_path, state, message, expected):
    fake_node.add_job(ID)
    fake_node.set_state(ID, state, message)
    result = run("get", ID)
    assert (result.exit_code, result.stderr, result.stdout) == (1, expected, "")
    assert list(tmp_path.iterdir()) == []


def test_tampered_results_are_an_error_and_leave_nothing(run, fake_node, results, tmp_path):
    fake_node.add_job(ID)
    fake_node.complete(ID, results)
    victim = next(cid for cid, block in fake_node.blocks.items() if block == b"hello\n")
    fake_node.blocks[victim] = b"jello\n"
    result = run("get", ID)
    assert result.exit_code == 1
    assert "does not match its hash" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["of-the-node"]


def test_cancel_stops_a_job_once(run, fake_node):
    fake_node.add_job(ID)
    assert run("cancel", "095be3fd").stdout == "Job '095be3fd' stopped.\n"
    job = fake_node.jobs[ID]
    assert (job.state, job.message) == (JobState.STOPPED, "cancelled by the user")
    assert run("cancel", ID).stdout == "Job '095be3fd' has already ended: stopped.\n"


@pytest.mark.parametrize("command", ["describe", "get", "cancel"])
def test_unknown_and_ambiguous_ids_are_errors_of_one_line(run, fake_node, command):
    fake_node.add_job(ID)
    fake_node.add_job(OTHER)
    unknown, ambiguous = run(command, "abc"), run(command, "09")
    assert (unknown.exit_code, unknown.stderr) == (
        1,
        "Error: no job has the id abc; `job list` shows the jobs of this node\n",
    )
    assert (ambiguous.exit_code, ambiguous.stderr) == (1, "Error: 2 jobs have an id that begins with 09\n")
    assert fake_node.jobs[ID].state is JobState.PENDING


def test_what_failed_executions_left_is_written_to_a_folder_each(run, fake_node, results, tmp_path):
    fake_node.add_job(ID)
    cid = fake_node.complete(ID, results)
    (completed,) = fake_node.executions[ID]
    failed = completed.replace(state=ExecutionState.FAILED, proposal=None, published=None)
    fake_node.executions[ID] = [failed.replace(failed_cid=str(cid)), failed.replace(id=ExecutionID("e-2"))]
    assert run("get", "--failed", "--output-dir", "kept", ID).exit_code == 0
    (folder,) = (tmp_path / "kept").iterdir()
    assert (folder.name, (folder / "stdout").read_bytes()) == (failed.id, b"hello\n")


def test_a_job_of_which_nothing_is_kept_says_what_that_needs(run, fake_node):
    fake_node.add_job(ID)
    result = run("get", "--failed", ID)
    assert result.exit_code == 1
    assert "is kept: it needs --keep-failed-results" in result.stderr
    fake_node.add_job("1" + ID[1:], {**DOCKER, "KeepFailedResults": True})
    assert "is kept: none has failed yet, or it left nothing" in run("get", "--failed", "1" + ID[1:]).stderr


def test_what_an_execution_used_is_described_with_sizes_for_people(run, fake_node, results):
    fake_node.add_job(ID)
    fake_node.complete(ID, results)
    (completed,) = fake_node.executions[ID]
    used = Usage(cpu_seconds=1.50004, peak_memory=61_000_000, result_bytes=7)
    failed = completed.replace(state=ExecutionState.FAILED, proposal=None, failed_usage=used)
    fake_node.executions[ID] = [failed]
    (shown,) = yaml.safe_load(run("describe", ID).stdout)["Executions"]
    assert shown["Usage"] == {"CPUSeconds": 1.5, "PeakMemory": "61 MB", "ResultBytes": "7 bytes"}
