"""The word count example counts right, and alike wherever it runs."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from bacalhau_p2p.executors.interface import MountedInput, RunRequest
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import NetworkSpec, ResultPath, SpecConfig
from bacalhau_p2p.model.resources import Resources

EXAMPLE = Path(__file__).parents[3] / "examples" / "wordcount"
WORD = re.compile(rb"[a-z0-9\x80-\xff]+(?:'[a-z0-9\x80-\xff]+)*")


def request(base: Path, folder: Path, *arguments: str, module: Path | None = None) -> RunRequest:
    base.mkdir()
    (base / "work").mkdir()
    (base / "results").mkdir()
    return RunRequest(
        job_id=JobID("j-1"),
        execution_id=ExecutionID("e-1"),
        engine=SpecConfig(
            type="wasm", params={"EntryModule": "/wordcount.wasm", "Parameters": list(arguments)}
        ),
        inputs=[
            MountedInput(path=module or EXAMPLE / "wordcount.wasm", target="/wordcount.wasm"),
            MountedInput(path=folder, target="/inputs"),
        ],
        result_paths=[ResultPath(name="outputs", path="/outputs")],
        environment={},
        resources=Resources(memory=64 * 1024**2),
        network=NetworkSpec(),
        timeout=60,
        deterministic=True,
        work=base / "work",
        results=base / "results",
    )


def counted_by_python(files: Mapping[str, bytes]) -> tuple[list[list[str]], Counter[bytes]]:
    rows = [
        [f"/inputs/{name}", data.count(b"\n"), len(data.split()), len(data)]
        for name, data in sorted(files.items())
    ]
    rows.append(["total", *(sum(row[column] for row in rows) for column in (1, 2, 3))])
    words: Counter[bytes] = Counter()
    for data in files.values():
        words.update(WORD.findall(data.lower()))
    return [list(map(str, row)) for row in rows], words


def check(asked: RunRequest, output: RunOutput, files: Mapping[str, bytes], top: int) -> None:
    assert (output.exit_code, output.stderr) == (0, b"")
    rows, words = counted_by_python(files)
    table = (asked.results / "outputs" / "counts.csv").read_text()
    assert list(csv.reader(io.StringIO(table))) == [["file", "lines", "words", "bytes"], *rows]
    counts, _, frequent = (asked.results / "stdout").read_bytes().partition(b"\n\n")
    assert [[*line.split()[3:], *line.split()[:3]] for line in counts.decode().splitlines()[1:]] == rows
    expected = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:top]
    found = [tuple(reversed(line.split())) for line in frequent.splitlines()[1:]]
    assert [(word, int(count)) for word, count in found] == expected


async def test_the_counts_of_the_example_texts_equal_those_of_python(
    executor: WasmExecutor, tmp_path: Path
) -> None:
    files = {path.name: path.read_bytes() for path in (EXAMPLE / "texts").iterdir()}
    assert len(files) == 3
    asked = request(tmp_path / "run", EXAMPLE / "texts", "-n", "100", "/inputs")
    check(asked, await executor.run(asked), files, top=100)


async def test_unusual_files_are_counted(executor: WasmExecutor, tmp_path: Path) -> None:
    files = {
        "a-empty": b"",
        "b-no-newline": b"one two",
        "c-quotes": b"'tis don't rock'n'roll o'' 'x' it's IT'S\n",
        "d-bytes": bytes(range(256)) * 3,
        "e-long": b"x" * 200_000 + b" y",
        "f-utf8": "na\u00efve caf\u00e9 \u0416\u0443\u043a\n".encode(),
    }
    folder = tmp_path / "files"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "link").symlink_to("b-no-newline")
    asked = request(tmp_path / "run", folder, "-n", "8")
    check(asked, await executor.run(asked), files, top=8)


async def test_results_do_not_depend_on_the_order_of_files(executor: WasmExecutor, tmp_path: Path) -> None:
    names = [f"{letter}/{number}" for letter in "abc" for number in range(20)]
    results = []
    for turn, order in enumerate((names, names[::-1])):
        folder = tmp_path / f"files-{turn}"
        for name in order:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"words of {name}\n")
        asked = request(tmp_path / f"run-{turn}", folder)
        assert (await executor.run(asked)).exit_code == 0
        results.append({p.name: p.read_bytes() for p in asked.results.rglob("*") if p.is_file()})
    assert results[0] == results[1]
    assert set(results[0]) == {"stdout", "stderr", "exitCode", "counts.csv"}


async def test_an_unreadable_file_is_reported_and_fails(executor: WasmExecutor, tmp_path: Path) -> None:
    asked = request(tmp_path / "run", EXAMPLE / "texts", "/inputs/missing")
    output = await executor.run(asked)
    assert output.exit_code == 1
    assert output.stderr == b"wordcount: /inputs/missing: No such file or directory\n"
    asked = request(tmp_path / "usage", EXAMPLE / "texts", "-n", "many")
    assert (await executor.run(asked)).exit_code == 2


@pytest.fixture
def built(tmp_path: Path) -> Path:
    if not shutil.which("clang") or not Path("/usr/include/wasm32-wasi").exists():
        pytest.skip("no clang with wasi-libc here: wordcount.c is not compiled")
    module = tmp_path / "built.wasm"
    subprocess.run([EXAMPLE / "build", module], check=True)
    return module


async def test_the_committed_module_equals_one_built_from_source(
    executor: WasmExecutor, tmp_path: Path, built: Path
) -> None:
    outputs = []
    for name, path in (("committed", EXAMPLE / "wordcount.wasm"), ("built", built)):
        asked = request(tmp_path / name, EXAMPLE / "texts", module=path)
        assert (await executor.run(asked)).exit_code == 0
        outputs.append((asked.results / "stdout").read_bytes())
    assert outputs[0] == outputs[1]
