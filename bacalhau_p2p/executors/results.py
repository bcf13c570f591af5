"""Writes the results folder of one run: limited streams, the exit code, and a folder for each result path."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.interface import STREAM_LIMIT
from bacalhau_p2p.model.execution import INLINE_OUTPUT_LIMIT, RunOutput
from bacalhau_p2p.model.job import ResultPath
from bacalhau_p2p.runtime.text import printable

STDOUT = "stdout"
STDERR = "stderr"
EXIT_CODE = "exitCode"
RESERVED_NAMES = frozenset({STDOUT, STDERR, EXIT_CODE})

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


MAX_LEFT_OUT = 100
"""What was left out of a result, as far as stderr names it; more are counted."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a run left that cannot be part of its result: its path in the results folder, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        path = os.fsencode(self.path).decode("utf-8", "backslashreplace")
        return printable(f"left out of the results: {path}: {self.reason}")


class KeptStream:
    """Writes one stream of a run to a file. Keeps `limit` bytes and drops the rest."""

    def __init__(self, path: Path, limit: int) -> None:
        self._fd = os.open(path, _CREATE, 0o644)
        self._limit = limit
        self.kept = 0
        """Bytes in the file."""
        self.dropped = 0
        """Bytes beyond the limit."""

    @property
    def room(self) -> int:
        """Bytes that may still be kept."""
        return self._limit - self.kept

    def fileno(self) -> int:
        """The file's descriptor, as of any file."""
        return self._fd

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep what fits. Blocks as writing to a local file does.

        Raises ExecutorError when the file cannot be written.
        """
        view = memoryview(data)
        wanted = len(view)
        view = view[: self.room]
        self.dropped += wanted - len(view)
        try:
            while view:
                written = os.write(self._fd, view)
                self.kept += written
                view = view[written:]
        except OSError as error:
            raise write_failed(error) from error

    def head(self) -> bytes:
        """The first INLINE_OUTPUT_LIMIT bytes, read back from the file."""
        return os.pread(self._fd, INLINE_OUTPUT_LIMIT, 0) if self.kept else b""

    @property
    def truncated(self) -> bool:
        """Whether `head` is not all that the job wrote."""
        return self.kept > INLINE_OUTPUT_LIMIT or self.dropped > 0

    def close(self) -> None:
        """Close the file; closing again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class ResultsFolder:
    """The results folder of one run, for the length of a `with` block.

    On entry, `folder`, which was empty, gets `stdout`, `stderr` and one folder for each result path.
    `finish` adds the exit code; without it the folder is that of a run that never ended. On exit the
    files are closed.

    With `resumed` it is the folder of a run that continues: its streams start again, and the contents
    of its result paths stay.
    """

    stdout: KeptStream
    stderr: KeptStream

    def __init__(
        self,
        folder: Path,
        result_paths: Sequence[ResultPath] = (),
        *,
        limit: int = STREAM_LIMIT,
        resumed: bool = False,
    ) -> None:
        self.folder = folder
        self._result_paths = result_paths
        self._limit = limit
        self._resumed = resumed
        self.outputs: Mapping[str, Path] = {}
        """The job's writable folders on this machine, by their absolute path inside the job."""

    def __enter__(self) -> Self:
        """Raises ExecutorError: permanent for an invalid result path, else when the disk refuses."""
        check_result_paths(self._result_paths)
        try:
            if self._resumed:
                for name in RESERVED_NAMES:
                    (self.folder / name).unlink(missing_ok=True)
            self.stdout = KeptStream(self.folder / STDOUT, self._limit)
            try:
                self.stderr = KeptStream(self.folder / STDERR, self._limit)
                self.outputs = {result.path: self._make(result.name) for result in self._result_paths}
            except OSError:
                self._close()
                raise
        except OSError as error:
            raise write_failed(error) from error
        return self

    def _make(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=self._resumed)
        return folder

    def finish(self, exit_code: int, left_out: Sequence[LeftOut] = ()) -> RunOutput:
        """Write the exit code (the number as text, no newline); the output of the run.

        The end of stderr says what was left out.
        """
        self._report(left_out)
        try:
            fd = os.open(self.folder / EXIT_CODE, _CREATE, 0o644)
            try:
                os.write(fd, str(exit_code).encode())
            finally:
                os.close(fd)
            return RunOutput(
                exit_code=exit_code,
                stdout=self.stdout.head(),
                stderr=self.stderr.head(),
                stdout_truncated=self.stdout.truncated,
                stderr_truncated=self.stderr.truncated,
            )
        except OSError as error:
            raise write_failed(error) from error

    def _report(self, left_out: Sequence[LeftOut]) -> None:
        if not left_out:
            return
        lines = sorted(map(str, left_out))
        if len(lines) > MAX_LEFT_OUT:
            lines[MAX_LEFT_OUT:] = [f"left out of the results: {len(lines) - MAX_LEFT_OUT} more"]
        self.stderr.write("".join(f"{line}\n" for line in lines).encode())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        self.stdout.close()
        if hasattr(self, "stderr"):
            self.stderr.close()


def check_result_paths(result_paths: Sequence[ResultPath]) -> None:
    """Raises ExecutorError, permanent, for names or paths that a results folder cannot have."""
    names: set[str] = set()
    paths: set[str] = set()
    for result in result_paths:
        if problem := _problem(result, names, paths):
            raise ExecutorError(f"result path {result.name!r}: {problem}", permanent=True)
        names.add(result.name)
        paths.add(result.path)


def _problem(result: ResultPath, names: set[str], paths: set[str]) -> str:
    name, path = result.name, result.path
    if not name or name in {".", ".."} or "/" in name or "\0" in name or len(os.fsencode(name)) > 255:
        return "its name is not a valid folder name"
    if name in RESERVED_NAMES:
        return "its name is reserved for the output of the run"
    if name in names:
        return "its name is used twice"
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        return f"its path {path!r} is not absolute"
    if path in paths:
        return f"its path {path} is used twice"
    return ""


def write_failed(error: OSError) -> ExecutorError:
    """The error for results that cannot be written to this node's disk."""
    return ExecutorError(f"results cannot be written on this node: {error.strerror or error}")
