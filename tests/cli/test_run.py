"""`docker run`, `wasm run`, `job run` and `validate`, with a fake node.

Covers `cli.docker_run`, `cli.wasm_run`, `cli.job_run`, `cli.inputs` and `cli.submit`.
"""

from __future__ import annotations

import os

import pytest
import yaml

from bacalhau_p2p.cli.job_view import state_of
from bacalhau_p2p.cli.submit import exit_status, wait_for_job
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.ipfs.files.importer import cid_of
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import JobState

CID = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"
FIRST = "00000000-0000-4000-8000-000000000000"


def completes(fake_node, results, output: RunOutput | None = None) -> None:
    fake_node.on_submit = lambda job: fake_node.complete(job.id, results, output)


def test_docker_run_prints_the_id_and_the_output_of_the_job(run, fake_node, results):
    completes(fake_node, results, RunOutput(exit_code=3, stdout=b"hello\n", stderr=b"oh"))
    result = run("docker", "run", "busybox", "echo", "hello")
    (cid,) = [execution.published.cid for execution in fake_node.executions[FIRST]]
    assert result.exit_code == 3
    assert result.stdout == f"{FIRST}\nhello\n"
    assert result.stderr == (
        f"  Completed\noh\nexit code: 3\n\nResult: ipfs://{cid}\n"
        "To get the results:  bacalhau-p2p get 00000000\n"
        "To see the details:  bacalhau-p2p describe 00000000\n"
    )
    assert fake_node.jobs[FIRST].spec.task.engine.params == {
        "Image": "busybox",
        "Parameters": ["echo", "hello"],
    }


def test_id_only_with_wait_prints_only_the_id(run, fake_node, results):
    completes(fake_node, results)
    result = run("docker", "run", "--id-only", "--wait", "busybox:latest", "--", "sh", "-c", "uname -a")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{FIRST}\n", "")
    assert fake_node.jobs[FIRST].spec.task.engine.params["Parameters"] == ["sh", "-c", "uname -a"]
    assert [path for _, path in fake_node.requests if "wait=" in path] != []


@pytest.mark.parametrize("flag", ["--id-only", "--no-wait"])
def test_no_wait_prints_the_id_at_once(run, fake_node, flag):
    result = run("docker", "run", flag, "busybox")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{FIRST}\n", "")
    assert len(fake_node.requests) == 1


@pytest.mark.parametrize("flags", [(), ("--id-only", "--wait"), ("--download",)])
def test_a_failed_job_fails_the_command_with_its_message(run, fake_node, tmp_path, flags):
    fake_node.on_submit = lambda job: fake_node.set_state(job.id, JobState.FAILED, "no such image")
    result = run("docker", "run", *flags, "busybox")
    assert result.exit_code == 125
    assert result.stdout == f"{FIRST}\n"
    assert result.stderr.splitlines()[-1] == "Error: no such image (job 00000000 failed)"
    assert list(tmp_path.iterdir()) == []


def test_download_writes_the_results(run, fake_node, results, tmp_path):
    completes(fake_node, results)
    result = run("docker", "run", "--download", "--output-dir", "here", "busybox")
    assert result.exit_code == 0
    assert cid_of(tmp_path / "here") == cid_of(results)
    quiet = run("docker", "run", "--id-only", "--download", "busybox")
    assert quiet.stdout == "00000001-0000-4000-8000-000000000000\n"
    assert cid_of(tmp_path / "job-00000001") == cid_of(results)


def test_download_merges_the_results_of_the_nodes_of_an_ops_job(run, fake_node, results, tmp_path):
    def complete(job) -> None:
        fake_node.complete(job.id, results)
        (results / "outputs" / "data.bin").rename(results / "outputs" / "other.bin")
        fake_node.complete(job.id, results)
        fake_node.executions[job.id][1] = fake_node.executions[job.id][1].replace(node_id="12D3KooWb")

    fake_node.on_submit = complete
    (tmp_path / "job.yaml").write_text("{Type: ops, Tasks: [{Engine: {Type: noop}}]}")
    ran = run("job", "run", "--download", "--merge", "--output-dir", "here", "job.yaml")
    assert ran.exit_code == 0, ran.output
    assert sorted(path.name for path in (tmp_path / "here" / "outputs").iterdir()) == [
        "data.bin",
        "other.bin",
    ]
    assert (tmp_path / "here" / "12D3KooWb" / "stdout").read_bytes() == b"hello\n"
    needs = run("job", "run", "--merge", "job.yaml")
    assert (needs.exit_code, "--merge needs --download" in needs.stderr) == (2, True)


@pytest.mark.parametrize("there", ["file", "clash", "below"])
def test_a_folder_that_cannot_take_the_results_is_refused_before_the_job_runs(
    run, fake_node, tmp_path, there
):
    (tmp_path / "file").write_text("x")
    (tmp_path / "clash").mkdir()
    (tmp_path / "clash" / "stdout").write_text("of another job")
    folder = "file/below" if there == "below" else there
    result = run("docker", "run", "--download", "--output-dir", folder, "busybox")
    assert result.exit_code != 0
    assert fake_node.requests == []


def test_a_local_input_has_hidden_files_and_its_links_inside_and_says_what_it_has_not(
    run, fake_node, tmp_path
):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".env").write_text("A=1")
    (tmp_path / "data" / "inside").symlink_to(".env")
    (tmp_path / "data" / "outside").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "data" / "pipe")
    (tmp_path / "named").symlink_to("data")
    result = run("docker", "run", "--no-wait", "-i", "named", "busybox")
    assert result.exit_code == 0
    assert "left out: outside: a link that leads out of the folder\n" in result.stderr
    assert "left out: pipe: not a file, folder or link\n" in result.stderr
    assert sorted(fake_node.left_out) == [
        "/inputs: outside: a link that leads out of the folder",
        "/inputs: pipe: not a file, folder or link",
    ]
    (source,) = fake_node.jobs[FIRST].spec.task.input_sources
    expected = cid_of(tmp_path / "data", hidden=True, symlinks="inside")
    assert source.source.params == {"CID": str(expected)}


def test_two_inputs_without_targets_are_a_usage_error_before_anything_is_sent(run, fake_node, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    result = run("docker", "run", "-i", "a", "-i", "b", "busybox")
    assert result.exit_code == 2
    assert "-i a:/inputs/a -i b:/inputs/b" in " ".join(result.stderr.split())
    assert fake_node.requests == []


@pytest.mark.parametrize("flag", ["data:relative", "data,dst=relative"])
def test_a_relative_target_is_a_usage_error_that_says_how_it_begins(run, fake_node, tmp_path, flag):
    (tmp_path / "data").mkdir()
    result = run("docker", "run", "-i", flag, "busybox")
    assert result.exit_code == 2
    assert f"input '{flag}': DST must begin with /, as in " in result.stderr
    assert "/relative\n" in result.stderr
    assert fake_node.requests == []


def test_local_inputs_are_added_to_the_node_first(run, fake_node, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    inputs = [
        "data",
        f"file://{tmp_path}/data:/more",
        "b.txt",
        "b.txt,dst=/b",
        f"ipfs://{CID}:/c",
        f"{CID}:/d",
    ]
    inputs.append("https://example.org/e.csv")
    flags = [part for text in inputs for part in ("-i", text)]
    assert run("docker", "run", "--no-wait", *flags, "busybox").exit_code == 0
    folder, file = cid_of(tmp_path / "data"), cid_of(tmp_path / "b.txt")
    assert {folder, file} <= set(fake_node.blocks)
    sources = fake_node.jobs[FIRST].spec.task.input_sources
    assert [(source.target, next(iter(source.source.params.values()))) for source in sources] == [
        ("/inputs", str(folder)),
        ("/more", str(folder)),
        ("/inputs/b.txt", str(file)),
        ("/b", str(file)),
        ("/c", CID),
        ("/d", CID),
        ("/inputs", "https://example.org/e.csv"),
    ]


def test_dry_run_prints_the_job_and_sends_nothing(run, fake_node, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    result = run("docker", "run", "--dry-run", "-i", "a.txt", "--cpu", "2", "busybox")
    assert result.exit_code == 0
    spec = job_from_mapping(yaml.safe_load(result.stdout))
    assert spec.resources.cpu == 2
    assert spec.task.input_sources[0].source.params == {"CID": str(cid_of(tmp_path / "a.txt"))}
    assert fake_node.requests == []


def test_a_local_folder_is_divided_by_an_option_of_its_input(run, fake_node, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    (tmp_path / "some.wasm").write_bytes(b"\0asm\x01\0\0\0")
    value = "texts:/data,opt=partition=regex,opt=pattern=^."
    for command in (("docker", "run", "busybox"), ("wasm", "run", "some.wasm")):
        result = run(*command[:2], "--dry-run", "--count", "3", "-i", value, *command[2:])
        assert result.exit_code == 0, result.stderr
        spec = job_from_mapping(yaml.safe_load(result.stdout))
        source = spec.task.input_sources[-1]
        partition = {"Type": "regex", "Pattern": "^."}
        assert source.source.params == {"CID": str(cid_of(tmp_path / "texts")), "Partition": partition}
        assert spec.partitions == 3
    refused = run("docker", "run", "--dry-run", "-i", "texts/a.txt,opt=partition=object", "busybox")
    assert "input 'texts/a.txt' is a file, and only folders can be divided" in refused.stderr
    unknown = run("docker", "run", "--dry-run", "-i", "texts,opt=partion=object", "busybox")
    assert "unknown option 'partion'; use count, date-format, end-index" in unknown.stderr


def test_wasm_run_adds_a_local_module_to_the_node(run, fake_node, results, tmp_path):
    completes(fake_node, results)
    (tmp_path / "wc.wasm").write_bytes(b"\0asm\x01\0\0\0")
    result = run("wasm", "run", "--count", "3", "wc.wasm", "--", "--lines", "/inputs/a.txt")
    assert result.exit_code == 0
    spec = fake_node.jobs[FIRST].spec
    module = cid_of(tmp_path / "wc.wasm")
    assert spec.task.engine.params == {
        "EntryModule": "/modules/wc.wasm",
        "Parameters": ["--lines", "/inputs/a.txt"],
    }
    assert spec.task.input_sources[0].target == "/modules/wc.wasm"
    assert spec.task.input_sources[0].source.params == {"CID": str(module)}
    assert module in fake_node.blocks
    assert (spec.count, spec.verifier.type) == (3, "deterministic")


@pytest.mark.parametrize(
    ("module", "params"),
    [
        (CID, {"CID": CID}),
        (f"ipfs://{CID}", {"CID": CID}),
        ("https://example.org/m.wasm", {"URL": "https://example.org/m.wasm"}),
    ],
)
def test_a_wasm_module_may_be_a_cid_or_a_url(run, fake_node, module, params):
    assert run("wasm", "run", "--no-wait", "--entrypoint", "main", module).exit_code == 0
    task = fake_node.jobs[FIRST].spec.task
    assert task.engine.params == {"EntryModule": "/modules/entry.wasm", "Entrypoint": "main"}
    assert task.input_sources[0].source.params == params


@pytest.mark.parametrize("command", [("job", "run"), ("create",)])
def test_a_job_file_is_submitted(run, fake_node, results, tmp_path, command):
    completes(fake_node, results)
    (tmp_path / "job.yaml").write_text("name: from a file\ntasks: [engine: {type: noop}]")
    result = run(*command, "--id-only", "--wait", "job.yaml")
    assert (result.exit_code, result.stdout) == (0, f"{FIRST}\n")
    assert fake_node.jobs[FIRST].spec.name == "from a file"


def test_a_job_file_may_be_standard_input(run, fake_node):
    assert run("job", "run", "--no-wait", "-", input="tasks: [engine: {type: noop}]").exit_code == 0
    assert run("validate", "-", input="tasks: [engine: {type: noop}]").stdout == "The job is valid.\n"


@pytest.mark.parametrize(("command", "status"), [(("job", "run"), 125), (("validate",), 1)])
def test_an_invalid_job_file_is_an_error_with_every_fault(run, fake_node, tmp_path, command, status):
    (tmp_path / "job.json").write_text('{"Count": 0, "Tasks": [{"Engine": {"Type": "docker"}}]}')
    result = run(*command, "job.json")
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr == (
        "Error: invalid job in job.json:\n"
        "  Tasks[0].Engine.Params.Image: missing\n"
        "  Count: must be at least 1, not 0\n"
    )  # fmt: skip
    assert fake_node.requests == []


def test_a_fault_that_the_node_finds_is_an_error(run):
    result = run("docker", "run", "--memory", "lots", "busybox")
    assert result.exit_code == 125
    assert result.stderr.splitlines()[0] == (
        "Error: --memory: 'lots' is not a size in bytes, such as 256mb or 1Gi"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("docker", "run"),
        ("docker", "run", "--count", "0", "busybox"),
        ("docker", "run", "busybox", "-c"),
        ("docker", "run", "-i", "absent", "busybox"),
        ("docker", "run", "-o", "x", "busybox"),
        ("docker", "run", "-e", "SURELY_NOT_SET_HERE", "busybox"),
        ("wasm", "run", "absent.wasm"),
        ("job", "run", "absent.yaml"),
        ("validate", "."),
        ("add", "absent"),
        ("lst",),
        ("list", "-n", "0"),
        ("--api-port", "0", "list"),
    ],
)
def test_wrong_usage_is_an_error_and_sends_nothing(run, fake_node, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert fake_node.requests == []


def test_a_similar_command_is_suggested(run):
    assert "did you mean 'list'?" in run("lst").stderr


def test_a_node_that_responds_early_is_not_asked_again_at_once(fake_node):
    fake_node.add_job(FIRST)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            fake_node.set_state(FIRST, JobState.FAILED)

    fake_node.respond_early = True
    with BlockingConnection("127.0.0.1", fake_node.port) as connection:
        job, _ = wait_for_job(connection, FIRST, quiet=True, clock=lambda: 0.0, sleep=sleep)
    assert state_of(job) == ("Failed", "")
    assert pauses == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("code", "status"), [(0, 0), (137, 137), (255, 255), (3_221_225_477, 255), (-1, 255)]
)
@pytest.mark.parametrize("flags", [("--id-only", "--wait"), ("--download",), ()])
def test_the_exit_status_is_that_of_the_program(run, fake_node, results, code, status, flags):
    completes(fake_node, results, RunOutput(exit_code=code))
    assert run("docker", "run", *flags, "busybox").exit_code == status


def test_the_exit_status_of_several_is_the_first_that_is_not_zero():
    def execution(code: int) -> dict[str, object]:
        return {"ComputeState": {"State": "Completed"}, "RunOutput": {"ExitCode": code}}

    assert exit_status([execution(0), execution(3), execution(1)]) == 3
    assert exit_status([execution(0), execution(0)]) == 0
    assert exit_status([]) == 0


@pytest.mark.parametrize("flag", ["--wait=false", "--no-wait"])
def test_waiting_is_switched_off_as_in_bacalhau(run, fake_node, flag):
    assert run("docker", "run", flag, "busybox", "--", "--wait=false").exit_code == 0
    assert fake_node.jobs[FIRST].spec.task.engine.params["Parameters"] == ["--wait=false"]
    assert not [path for _, path in fake_node.requests if "wait=" in path]


def test_flags_of_bacalhau_are_understood(run, fake_node):
    flags = [
        "--name", "words", "-l", "a=b,c=d", "--labels", "e", "-s", "zone=lab,!slow", "--priority", "4",
        "--namespace", "n", "--task-name", "t", "--disk", "1gb", "-c", "2", "--target", "any",
        "-p", "s3://bucket/key,opt=region=eu-west-1", "-i", "s3://data/k,dst=/in,opt=region=us-east-1",
    ]  # fmt: skip
    result = run("docker", "run", "--no-wait", *flags, "busybox")
    assert result.exit_code == 0, result.stderr
    spec = fake_node.jobs[FIRST].spec
    assert (spec.name, spec.namespace, spec.priority, spec.count) == ("words", "n", 4, 2)
    assert spec.labels == {"a": "b", "c": "d", "e": ""}
    assert [(c.key, c.operator, c.values) for c in spec.constraints] == [
        ("zone", "=", ("lab",)),
        ("slow", "!", ()),
    ]
    assert (spec.task.name, spec.task.resources.disk) == ("t", "1gb")
    assert spec.task.publisher.params == {"Bucket": "bucket", "Key": "key", "Region": "eu-west-1"}
    assert spec.task.input_sources[0].source.params["Region"] == "us-east-1"
    run("docker", "run", "--no-wait", "--type", "ops", "busybox")
    run("docker", "run", "--no-wait", "--count", "2", "--replicas", "3", "busybox")
    ops, divided = list(fake_node.jobs.values())[-2:]
    assert (ops.spec.is_ops, divided.spec.slots) == (True, 6)
    refused = run("docker", "run", "--target", "all", "busybox")
    assert (refused.exit_code, "use --type ops" in refused.stderr) == (2, True)


def test_a_module_is_linked_to_another(run, fake_node, tmp_path):
    for name in ("main.wasm", "lib.wasm"):
        (tmp_path / name).write_bytes(name.encode())
    linked = ["-I", "lib.wasm", "-I", f"ipfs://{CID}"]
    assert run("wasm", "run", "--no-wait", *linked, "main.wasm").exit_code == 0
    task = fake_node.jobs[FIRST].spec.task
    assert task.engine.params["EntryModule"] == "/modules/main.wasm"
    assert task.engine.params["ImportModules"] == ["/modules/lib.wasm", "/modules/import-1.wasm"]
    assert [each.target for each in task.input_sources] == [
        "/modules/main.wasm", "/modules/lib.wasm", "/modules/import-1.wasm",
    ]  # fmt: skip


JOB_FILE = "Name: {{.who}}\nTasks: [{Engine: {Type: noop, Params: {Stdout: '{{ .HOME_OF }}'}}}]\n"


def test_a_job_file_comes_from_a_pipe_and_its_variables_are_filled_in(run, fake_node, monkeypatch):
    monkeypatch.setenv("HOME_OF", "cats")
    result = run("job", "run", "--no-wait", "-V", "who=me", "-E", "HOME_.*", input=JOB_FILE)
    assert result.exit_code == 0, result.stderr
    spec = fake_node.jobs[FIRST].spec
    assert (spec.name, spec.task.engine.params["Stdout"]) == ("me", "cats")
    missing = run("job", "run", "-V", "x=y", input=JOB_FILE)
    assert (missing.exit_code, "set it with -V who=VALUE" in missing.stderr) == (2, True)
    assert run("validate", input="Tasks: [{Engine: {Type: noop}}]").stdout == "The job is valid.\n"
