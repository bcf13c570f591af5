from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import wasmtime

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import MountedInput, RunRequest
from bacalhau_p2p.executors.results import KeptStream, disk_refused
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import NetworkSpec, ResultPath, SpecConfig
from bacalhau_p2p.model.resources import Resources

PROBE = Path(__file__).parent / "probe.wasm"
MB = 1024**2


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[WasmExecutor]:
    executor = WasmExecutor(tmp_path / "cache")
    yield executor
    await executor.aclose()


def request(base: Path, module: Path, *arguments: str, **changes: Any) -> RunRequest:
    """A request to run this module as `/module.wasm`; `changes` are fields, or engine parameters."""
    number = len(list(base.glob("run-*")))
    folder = base / f"run-{number}"
    (folder / "work").mkdir(parents=True)
    (folder / "results").mkdir()
    params = {"EntryModule": "/module.wasm", "Parameters": list(arguments)}
    params |= {name: changes.pop(name) for name in list(changes) if name[0].isupper()}
    return RunRequest(
        **{
            "job_id": JobID("j-1"),
            "execution_id": ExecutionID(f"e-{number}"),
            "engine": SpecConfig(type="wasm", params=params),
            "inputs": [MountedInput(path=module, target="/module.wasm"), *changes.pop("more", ())],
            "result_paths": (),
            "environment": {},
            "resources": Resources(memory=64 * MB),
            "network": NetworkSpec(),
            "timeout": 60,
            "deterministic": False,
            "work": folder / "work",
            "results": folder / "results",
            **changes,
        }
    )


def wat(folder: Path, text: str, name: str = "module.wasm") -> Path:
    """A module from its text."""
    path = folder / name
    path.write_bytes(wasmtime.wat2wasm(text))
    return path


async def prepare_and_run(executor: WasmExecutor, asked: RunRequest) -> RunOutput:
    await executor.prepare(asked)
    return await executor.run(asked)


async def refused(executor: WasmExecutor, asked: RunRequest) -> str:
    """Why it could not be run, for a reason that is the same on every node."""
    with pytest.raises(ExecutorError) as caught:
        await prepare_and_run(executor, asked)
    assert caught.value.permanent, caught.value
    assert not (asked.results / "exitCode").exists()
    return str(caught.value)


# --- what is not a program ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "bad.wasm is not a WebAssembly module"),
        (b"#!/bin/sh\n", "bad.wasm is not a WebAssembly module"),
        (b'(module (func (export "_start")))', "bad.wasm is not a WebAssembly module"),
        (b"\0asm\x0d\0\x01\0", "bad.wasm is a WebAssembly component; only core modules"),
        (b"\0asm\x01\0\0\0garbage", "bad.wasm is not a valid WebAssembly module: "),
        (PROBE.read_bytes()[:20_000], "bad.wasm is not a valid WebAssembly module: "),
    ],
)
async def test_what_is_not_a_module_is_refused_at_preparation(
    executor: WasmExecutor, tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "anything"
    path.write_bytes(content)
    asked = request(
        tmp_path, path, EntryModule="/bad.wasm", inputs=[MountedInput(path=path, target="/bad.wasm")]
    )
    with pytest.raises(ExecutorError) as caught:
        await executor.prepare(asked)
    assert caught.value.permanent
    assert str(caught.value).startswith(why)
    assert "\n" not in str(caught.value)


async def test_a_missing_entry_point_names_those_there_are(executor: WasmExecutor, tmp_path: Path) -> None:
    module = wat(
        tmp_path, '(module (func (export "run")) (func (export "help")) (memory (export "memory") 1))'
    )
    asked = request(tmp_path, module)
    assert await refused(executor, asked) == (
        "module.wasm has no function '_start' to start; it exports: help, run"
    )
    asked = request(tmp_path, module, Entrypoint="memory")
    assert "has no function 'memory'" in await refused(executor, asked)
    assert (await executor.run(request(tmp_path, module, Entrypoint="run"))).exit_code == 0


async def test_an_entry_point_with_parameters_is_refused(executor: WasmExecutor, tmp_path: Path) -> None:
    module = wat(tmp_path, '(module (func (export "_start") (param i32)))')
    assert "takes 1 parameters; it must take none" in await refused(executor, request(tmp_path, module))


async def test_a_missing_import_is_named(executor: WasmExecutor, tmp_path: Path) -> None:
    module = wat(tmp_path, '(module (import "env" "telephone" (func)) (func (export "_start")))')
    why = await refused(executor, request(tmp_path, module))
    assert "`env::telephone`" in why
    assert "\n" not in why


async def test_a_module_that_starts_with_more_memory_than_it_may_have_is_refused(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    module = wat(tmp_path, '(module (memory 2000) (func (export "_start")))')
    assert "memory" in await refused(executor, request(tmp_path, module))


# --- how runs end ------------------------------------------------------------------------


async def test_a_trap_is_a_result_with_its_reason_on_stderr(executor: WasmExecutor, tmp_path: Path) -> None:
    asked = request(tmp_path, PROBE, "trap")
    output = await executor.run(asked)
    assert output.exit_code == 134
    assert b"wasm `unreachable` instruction executed" in output.stderr
    assert (asked.results / "exitCode").read_text() == "134"
    assert (asked.results / "stderr").read_bytes() == output.stderr


async def test_a_trap_at_instantiation_is_a_result_too(executor: WasmExecutor, tmp_path: Path) -> None:
    module = wat(tmp_path, '(module (func $f unreachable) (start $f) (func (export "_start")))')
    assert (await executor.run(request(tmp_path, module))).exit_code == 134


async def test_endless_recursion_traps(executor: WasmExecutor, tmp_path: Path) -> None:
    module = wat(tmp_path, '(module (func $f (export "_start") (call $f)))')
    output = await executor.run(request(tmp_path, module))
    assert output.exit_code == 134
    assert b"call stack exhausted" in output.stderr


@pytest.mark.parametrize(("given", "code"), [("256", 256), ("-1", 2**32 - 1), (str(-(2**31)), 2**31)])
async def test_exit_codes_keep_all_their_bits(
    executor: WasmExecutor, tmp_path: Path, given: str, code: int
) -> None:
    assert (await executor.run(request(tmp_path, PROBE, "exit", given))).exit_code == code


async def test_what_was_said_before_the_end_is_kept(executor: WasmExecutor, tmp_path: Path) -> None:
    module = wat(
        tmp_path,
        """(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "\\10\\00\\00\\00\\05\\00\\00\\00")
          (data (i32.const 16) "hello")
          (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            unreachable))""",
    )
    output = await executor.run(request(tmp_path, module))
    assert (output.exit_code, output.stdout) == (134, b"hello")


async def test_memory_ends_at_its_limit(executor: WasmExecutor, tmp_path: Path) -> None:
    for limit in (16, 48):
        output = await executor.run(
            request(tmp_path, PROBE, "eat", "1000", resources=Resources(memory=limit * MB))
        )
        assert output.exit_code == 3
        assert limit * 0.8 < int(output.stdout) < limit


async def test_a_file_ends_at_the_disk_limit(executor: WasmExecutor, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(2 * MB))
    asked = request(
        tmp_path,
        PROBE,
        "copy",
        "/data/big",
        "/out/big",
        more=[MountedInput(path=big, target="/data/big")],
        result_paths=[ResultPath(name="out", path="/out")],
        resources=Resources(memory=64 * MB, disk=MB),
    )
    output = await executor.run(asked)
    assert output.exit_code == 1
    assert b"File too large" in output.stderr
    assert (asked.results / "out" / "big").stat().st_size <= MB


async def test_a_flood_is_cut_and_the_job_goes_on(tmp_path: Path) -> None:
    executor = WasmExecutor(tmp_path / "cache", stream_limit=100_000)
    try:
        asked = request(tmp_path, PROBE, "flood", "100000")
        output = await executor.run(asked)
    finally:
        await executor.aclose()
    assert output.exit_code == 0
    assert (output.stdout_truncated, output.stderr_truncated) == (True, True)
    assert (asked.results / "stdout").stat().st_size == 100_000
    assert (asked.results / "stderr").stat().st_size == 100_000


async def test_a_full_disk_ends_the_run_as_this_nodes_fault(
    executor: WasmExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(stream: KeptStream, data: bytes) -> None:
        raise disk_refused(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    monkeypatch.setattr(KeptStream, "write", full)
    asked = request(tmp_path, PROBE, "flood", "1000000000")
    await executor.prepare(asked)
    with pytest.raises(ExecutorError, match="No space left") as caught:
        await executor.run(asked)
    assert not caught.value.permanent


# --- determinism -------------------------------------------------------------------------


async def test_chance_is_the_same_every_time_in_deterministic_mode_and_only_there(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    async def rng(deterministic: bool) -> list[bytes]:
        output = await executor.run(request(tmp_path, PROBE, "chance", deterministic=deterministic))
        assert output.exit_code == 0
        return output.stdout.split()

    first, second = await rng(True), await rng(True)
    assert first == second
    assert first[1:] == [b"1000000000.000001000", b"0.000002000", b"7ff8000000000000"]
    third, fourth = await rng(False), await rng(False)
    assert len({first[0], third[0], fourth[0]}) == 3
    assert float(third[1]) > 1.7e9
    assert third[1] != fourth[1]


async def test_two_executors_agree_on_every_byte(tmp_path: Path) -> None:
    outputs = []
    for name in ("one", "two"):
        executor = WasmExecutor(tmp_path / name)
        try:
            asked = request(tmp_path, PROBE, "chance", deterministic=True, environment={"B": "1", "A": "2"})
            await executor.run(asked)
            outputs.append({path.name: path.read_bytes() for path in asked.results.iterdir()})
        finally:
            await executor.aclose()
    assert outputs[0] == outputs[1]


async def test_sleeping_takes_no_time_in_deterministic_mode(executor: WasmExecutor, tmp_path: Path) -> None:
    with trio.fail_after(60):
        output = await executor.run(request(tmp_path, PROBE, "doze", "86400", deterministic=True))
    assert (output.exit_code, output.stdout) == (0, b"86400000\n")


async def test_random_bytes_beyond_the_guests_memory_are_refused_to_it(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    module = wat(
        tmp_path,
        """(module
          (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1)
          (func (export "_start") (call $exit (call $random (i32.const 65530) (i32.const 7)))))""",
    )
    assert (await executor.run(request(tmp_path, module, deterministic=True))).exit_code == 21  # EFAULT


# --- modules and mounts --------------------------------------------------------------------

DOUBLE = '(module (func (export "double") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2))))'


def user_of(name: str) -> str:
    return f"""(module
      (import "{name}" "double" (func $double (param i32) (result i32)))
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1)
      (func (export "_start") (call $exit (call $double (i32.const 21)))))"""


@pytest.mark.parametrize(
    ("name", "alias"), [("math", ""), ("/lib/math.wasm", ""), ("arithmetic", "arithmetic")]
)
async def test_import_modules_are_known_by_alias_target_and_file_name(
    executor: WasmExecutor, tmp_path: Path, name: str, alias: str
) -> None:
    library = MountedInput(path=wat(tmp_path, DOUBLE, "x"), target="/lib/math.wasm", alias=alias)
    asked = request(tmp_path, wat(tmp_path, user_of(name)), more=[library], ImportModules=["/lib/math.wasm"])
    assert (await executor.run(asked)).exit_code == 42


async def test_a_reactor_is_initialised_before_its_entry_point_is_called(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    module = wat(
        tmp_path,
        """(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (global $state (mut i32) (i32.const 1))
          (memory (export "memory") 1)
          (func (export "_initialize") (global.set $state (i32.const 7)))
          (func (export "work") (call $exit (global.get $state))))""",
    )
    assert (await executor.run(request(tmp_path, module, Entrypoint="work"))).exit_code == 7


@pytest.mark.parametrize(
    ("wanted", "target", "alias", "inside"),
    [
        ("entry", "/anywhere", "entry", ""),
        ("/bin/app.wasm", "/bin/app.wasm", "", ""),
        ("bin/app.wasm", "/bin/app.wasm", "", ""),
        ("app.wasm", "/bin/app.wasm", "", ""),
        ("entry", "/modules", "entry", "whatever.wasm"),
        ("/modules", "/modules", "", "whatever.wasm"),
        ("/modules/deep/app.wasm", "/modules", "", "deep/app.wasm"),
        ("app.wasm", "/modules", "", "app.wasm"),
    ],
)
async def test_the_entry_module_is_found_as_the_job_calls_it(
    executor: WasmExecutor, tmp_path: Path, wanted: str, target: str, alias: str, inside: str
) -> None:
    path = PROBE
    if inside:
        path = tmp_path / "folder"
        (path / inside).parent.mkdir(parents=True)
        (path / inside).write_bytes(PROBE.read_bytes())
        (path / "README").write_text("not a module")
    source = MountedInput(path=path, target=target, alias=alias)
    output = await executor.run(
        request(tmp_path, path, "say", "found", "", EntryModule=wanted, inputs=[source])
    )
    assert output == RunOutput(stdout=b"found")


async def test_a_module_that_is_not_there_or_not_alone_is_refused(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    two = tmp_path / "two"
    two.mkdir()
    (two / "a.wasm").write_bytes(b"")
    (two / "b.wasm").write_bytes(b"")
    secret = tmp_path / "secret.wasm"
    secret.write_bytes(PROBE.read_bytes())
    links = tmp_path / "links"
    links.mkdir()
    (links / "app.wasm").symlink_to(secret)

    async def why(wanted: str, *inputs: tuple[Path, str, str]) -> str:
        mounted = [MountedInput(path=path, target=target, alias=alias) for path, target, alias in inputs]
        return await refused(executor, request(tmp_path, PROBE, EntryModule=wanted, inputs=mounted))

    assert await why("app.wasm") == "no input is the module 'app.wasm'; the inputs are: none"
    assert (
        await why("app.wasm", (PROBE, "/x.wasm", ""), (PROBE, "/y.wasm", "other"))
        == "no input is the module 'app.wasm'; the inputs are: /x.wasm, other"
    )
    assert "folder with 2 .wasm files" in await why("/in", (two, "/in", ""))
    assert "several inputs" in await why("x.wasm", (PROBE, "/a/x.wasm", ""), (PROBE, "/b/x.wasm", ""))
    for wanted in ("app.wasm", "/in/app.wasm", "/in", "/in/../secret.wasm"):
        assert "no input is" in (said := await why(wanted, (links, "/in", ""))) or "0 .wasm" in said


@pytest.mark.parametrize(
    ("params", "faults"),
    [
        ({"EntryModule": "/a.wasm"}, []),
        (
            {
                "EntryModule": "/a.wasm",
                "Entrypoint": "go",
                "Parameters": ["a", ""],
                "EnvironmentVariables": {"A": "b"},
                "ImportModules": ["/b.wasm"],
            },
            [],
        ),
        ({}, ["Params.EntryModule"]),
        ({"EntryModule": 3}, ["Params.EntryModule"]),
        ({"EntryModule": "/a", "Parameters": "one two"}, ["Params.Parameters"]),
        ({"EntryModule": "/a", "Parameters": ["a\0b"]}, ["Params.Parameters[0]"]),
        ({"EntryModule": "/a", "Surprise": 1}, ["Params.Surprise"]),
    ],
)
async def test_faults_are_named_by_their_path(
    executor: WasmExecutor, tmp_path: Path, params: dict[str, Any], faults: list[str]
) -> None:
    engine = SpecConfig(type="wasm", params=params)
    assert [fault.path for fault in executor.faults(engine)] == faults
    if faults:
        assert faults[0] in await refused(executor, request(tmp_path, PROBE, engine=engine))


async def test_the_engines_variables_win_over_the_tasks(executor: WasmExecutor, tmp_path: Path) -> None:
    asked = request(
        tmp_path, PROBE, "variable", "A", environment={"A": "task"}, EnvironmentVariables={"A": "engine"}
    )
    assert (await executor.run(asked)).stdout == b"engine"


async def test_two_things_at_one_place_are_refused(executor: WasmExecutor, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for more, results in (
        ([(folder, "/data"), (folder, "/data/")], ()),
        ([(PROBE, "/data/a"), (PROBE, "/data/a")], ()),
        ([(folder, "/data"), (PROBE, "/data/a")], ()),
        ([(folder, "/out")], [ResultPath(name="out", path="/out")]),
    ):
        mounted = [MountedInput(path=path, target=target) for path, target in more]
        why = await refused(
            executor, request(tmp_path, PROBE, "exit", "0", more=mounted, result_paths=results)
        )
        assert "two inputs" in why


async def test_an_input_that_vanished_is_this_nodes_fault(executor: WasmExecutor, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    asked = request(tmp_path, PROBE, "exit", "0", more=[MountedInput(path=folder, target="/in")])
    await executor.prepare(asked)
    folder.rmdir()
    with pytest.raises(ExecutorError, match="/in") as caught:
        await executor.run(asked)
    assert not caught.value.permanent


async def test_a_job_sees_nothing_outside_its_mounts(executor: WasmExecutor, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the node")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "absolute").symlink_to(secret)
    (folder / "relative").symlink_to("../secret")
    for source in (
        "/in/absolute",
        "/in/relative",
        "/in/../secret",
        str(secret),
        "/etc/passwd",
        "/proc/self/environ",
    ):
        asked = request(
            tmp_path,
            PROBE,
            "copy",
            source,
            "/out/copy",
            more=[MountedInput(path=folder, target="/in")],
            result_paths=[ResultPath(name="out", path="/out")],
        )
        assert (await executor.run(asked)).exit_code == 1, source
        assert list((asked.results / "out").iterdir()) == []


async def test_a_link_that_a_job_leaves_in_its_output_does_not_lead_the_next_one_out(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("of the node")
    first = request(
        tmp_path,
        PROBE,
        "link",
        "../../../secret",
        "/out/l",
        result_paths=[ResultPath(name="out", path="/out")],
    )
    assert (await executor.run(first)).exit_code == 0
    assert (first.results / "out" / "l").read_text() == "of the node", "the test's link leads nowhere"
    second = request(
        tmp_path,
        PROBE,
        "copy",
        "/in/l",
        "/out/copy",
        more=[MountedInput(path=first.results / "out", target="/in")],
        result_paths=[ResultPath(name="out", path="/out")],
    )
    assert (await executor.run(second)).exit_code == 1


@pytest.fixture
def far_file(tmp_path: Path) -> Iterator[Path]:
    """A file on another file system than the one on which jobs run."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system that can be written to")
    path = shared / f"bacalhau-test-{os.getpid()}"
    path.write_text("far away")
    yield path
    path.unlink()


async def test_a_file_input_from_another_file_system_is_copied(
    executor: WasmExecutor, tmp_path: Path, far_file: Path
) -> None:
    asked = request(
        tmp_path,
        PROBE,
        "copy",
        "/data/near",
        "/out/copy",
        more=[MountedInput(path=far_file, target="/data/near")],
        result_paths=[ResultPath(name="out", path="/out")],
    )
    assert (await executor.run(asked)).exit_code == 0
    assert (asked.results / "out" / "copy").read_text() == "far away"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def open_files(pid: int) -> list[str]:
    return sorted(entry.name for entry in Path(f"/proc/{pid}/fd").iterdir())


async def test_nothing_is_left_open_after_many_runs(executor: WasmExecutor, tmp_path: Path) -> None:
    async def some() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(executor.run, request(tmp_path, PROBE, "exit", "0"))

    await some()
    (warm,) = children(os.getpid())
    before = len(open_files(os.getpid())), len(open_files(warm))
    await some()
    assert (len(open_files(os.getpid())), len(open_files(warm))) == before
    assert children(warm) == []
