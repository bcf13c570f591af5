"""What a run finds, and what it leaves."""

from __future__ import annotations

import os

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.model.execution import INLINE_OUTPUT_LIMIT, RunOutput
from bacalhau_p2p.model.job import ResultPath
from bacalhau_p2p.testing.executors.kit import LINE, ExecutorKit


async def check_exit_codes_are_results(kit: ExecutorKit) -> None:
    """Codes from 0 to 255 are returned unchanged, and written into the results folder."""
    for code in (0, 1, 2, 125, 126, 127, 134, 137, 255):
        request = kit.request(kit.programs.exit_with(code))
        output = await kit.run(request)
        assert output == RunOutput(exit_code=code), f"{output} instead of exit code {code}"
        found = {entry.name: entry.read_bytes() for entry in request.results.iterdir()}
        assert found == {"stdout": b"", "stderr": b"", "exitCode": str(code).encode()}, found


async def check_streams_are_kept_apart(kit: ExecutorKit) -> None:
    """The output of a job is kept to the byte, even without a newline at the end."""
    request = kit.request(kit.programs.say("to the world\nunfinished", "only a warning"))
    output = await kit.run(request)
    assert output == RunOutput(stdout=b"to the world\nunfinished", stderr=b"only a warning"), output
    assert (request.results / "stdout").read_bytes() == b"to the world\nunfinished"
    assert (request.results / "stderr").read_bytes() == b"only a warning"


async def check_long_streams_are_complete(kit: ExecutorKit) -> None:
    """Both streams are complete, however long, and messages carry their first bytes."""
    lines = 65536
    request = kit.request(kit.programs.flood(lines))
    output = await kit.run(request)
    assert (output.exit_code, output.stdout_truncated, output.stderr_truncated) == (0, True, True)
    for name, expected, head in (
        ("stdout", LINE * lines, output.stdout),
        ("stderr", LINE * (lines // 2), output.stderr),
    ):
        kept = (request.results / name).read_bytes()
        assert len(kept) == len(expected), f"{name}: {len(kept)} bytes of {len(expected)}"
        assert kept == expected, f"{name} is wrong"
        assert head == expected[:INLINE_OUTPUT_LIMIT], f"{name}: the head in the message is wrong"


async def check_inputs_are_found_at_their_targets(kit: ExecutorKit) -> None:
    """A folder and a single file are at their targets."""
    single = kit.folder / "single"
    single.write_text("from a file")
    inputs = [
        kit.input_folder("/inputs/deep/er", {"a.txt": "from a folder"}),
        MountedInput(path=single, target="/data/renamed.txt"),
    ]
    for source, text in (("/inputs/deep/er/a.txt", "from a folder"), ("/data/renamed.txt", "from a file")):
        request = kit.request(
            kit.programs.copy(source, "/outputs/copy"),
            inputs=inputs,
            result_paths=[ResultPath(name="answers", path="/outputs")],
        )
        output = await kit.run(request)
        assert output.exit_code == 0, output
        assert (request.results / "answers" / "copy").read_text() == text


async def check_inputs_and_result_paths_may_lie_inside_one_another(kit: ExecutorKit) -> None:
    """The deeper one wins: a file over a folder, a folder in a folder, a result path inside an input, an
    input inside a result path. Nothing of the mount points is in the results."""
    single = kit.folder / "single"
    single.write_text("single")
    outer = kit.input_folder("/data", {"a.txt": "hidden", "b.txt": "outer"}, owned=True)
    inputs = [
        MountedInput(path=single, target="/data/a.txt", owned=True),
        kit.input_folder("/data/sub/deep", {"c.txt": "deep"}, owned=True),
        outer,
        kit.input_folder("/out/of/input", {"d.txt": "in a result path"}, owned=True),
        MountedInput(path=single, target="/out/e.txt", owned=True),
    ]
    paths = [ResultPath(name="inner", path="/data/result"), ResultPath(name="out", path="/out")]
    for source, text in (
        ("/data/a.txt", "single"),
        ("/data/b.txt", "outer"),
        ("/data/sub/deep/c.txt", "deep"),
        ("/out/of/input/d.txt", "in a result path"),
        ("/out/e.txt", "single"),
    ):
        for target in ("/data/result/copy", "/out/copy"):
            request = kit.request(kit.programs.copy(source, target), inputs=inputs, result_paths=paths)
            output = await kit.run(request)
            assert output.exit_code == 0, (source, target, output)
            found = {str(p.relative_to(request.results)) for p in request.results.rglob("*")}
            written = "inner/copy" if target.startswith("/data") else "out/copy"
            assert found == {"stdout", "stderr", "exitCode", "inner", "out", written}, found
            assert (request.results / written).read_text() == text
    assert single.read_text() == "single"


async def check_what_lies_inside_a_file_is_refused(kit: ExecutorKit) -> None:
    """As are two with the same path; both for good."""
    single = kit.folder / "single"
    single.write_text("single")
    file, inside = (
        MountedInput(path=single, target=target, owned=True) for target in ("/data/a", "/data/a/b")
    )
    for inputs in ([file, inside], [file, file]):
        try:
            await kit.run(kit.request(kit.programs.exit_with(0), inputs=inputs))
            failure = None
        except ExecutorError as error:
            failure = error
        assert failure is not None, "it ran"
        assert failure.permanent, failure


async def check_result_paths_are_folders_of_the_results(kit: ExecutorKit) -> None:
    """Each result path is a folder by its name, even when the job leaves nothing in it."""
    request = kit.request(
        kit.programs.write("/out/one/file", "text"),
        result_paths=[ResultPath(name="first", path="/out/one"), ResultPath(name="second", path="/two")],
    )
    output = await kit.run(request)
    assert output.exit_code == 0, output
    assert (request.results / "first" / "file").read_text() == "text"
    assert list((request.results / "second").iterdir()) == []


async def check_inputs_are_read_only(kit: ExecutorKit) -> None:
    """A job can neither change an input nor add to it; its attempt is a result, not an error."""
    mounted = kit.input_folder("/inputs", {"a.txt": "original"})
    mounted.path.chmod(0o777)
    (mounted.path / "a.txt").chmod(0o666)
    single = kit.folder / "single"
    single.write_text("original")
    single.chmod(0o666)
    inputs = [mounted, MountedInput(path=single, target="/data/single")]
    for path in ("/inputs/a.txt", "/inputs/new.txt", "/data/single"):
        output = await kit.run(kit.request(kit.programs.write(path, "changed"), inputs=inputs))
        assert output.exit_code != 0, f"{path} could be written"
    assert {entry.name: entry.read_text() for entry in mounted.path.iterdir()} == {"a.txt": "original"}
    assert single.read_text() == "original"


async def check_environment_and_arguments_arrive(kit: ExecutorKit) -> None:
    """Both arrive unchanged: no shell, no splitting, and nothing of the node's own environment."""
    value = 'two words, $HOME `id` \\ "quoted" ='
    os.environ["CONFORMANCE_OF_THE_NODE"] = "private"
    try:
        request = kit.request(kit.programs.print_variable("GREETING"), environment={"GREETING": value})
        assert (await kit.run(request)).stdout == value.encode()
        request = kit.request(kit.programs.print_variable("CONFORMANCE_OF_THE_NODE"))
        assert (await kit.run(request)).stdout == b""
    finally:
        del os.environ["CONFORMANCE_OF_THE_NODE"]
    arguments = ["plain", "", "two words", "-n", "$HOME", "*", "'\""]
    output = await kit.run(kit.request(kit.programs.print_arguments(arguments)))
    assert output.stdout.decode().split("\n") == [*arguments, ""], output.stdout
