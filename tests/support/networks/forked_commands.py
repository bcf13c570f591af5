"""`bacalhau-p2p` in real processes that are forked from one that has imported everything.

Such a process has its own id, files, environment and signals, and can be killed like any other. Only its
imports are saved. Tests of how the command itself starts run `COMMAND` with `subprocess`.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from tests.support.fork_server import context

BIN = Path(sys.executable).parent
COMMAND = str(BIN / "bacalhau-p2p")


class ForkedCommand:
    """A process that runs a program in Python, for those who know `subprocess.Popen`. Its output is text.

    The program is `COMMAND`, or `sys.executable` with a file or with `-m` and a module; arguments follow.
    What it writes to stderr is kept in a file until `communicate`.
    """

    def __init__(
        self,
        program: Sequence[str],
        *,
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start it. Its stdout is a file, or a pipe that is read from `self.stdout`."""
        reading, writing = (None, os.dup(stdout.fileno())) if stdout else os.pipe()
        self.stdout = None if reading is None else TextIOWrapper(os.fdopen(reading, "rb"), "utf-8")
        self._errors = stderr or tempfile.TemporaryFile()  # noqa: SIM115 - of this object
        with (
            Connection(writing, readable=False) as output,
            Connection(os.dup(self._errors.fileno()), readable=False) as errors,
        ):
            self._process = context.Process(
                target=_run,
                args=(list(program), output, errors, dict(env or os.environ), str(cwd or Path.cwd())),
                daemon=True,  # it ends with the tests at the latest
            )
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        """Its exit status, or minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Returns when it has ended. Raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return status

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """The rest of its stdout, if that is a pipe, and all of its stderr, once it has ended."""
        self.wait(timeout)
        output = "" if self.stdout is None else self.stdout.read()
        self._errors.seek(0)
        return output, self._errors.read().decode()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    program: Sequence[str], *, env: Mapping[str, str] | None, cwd: Path | None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Like `subprocess.run`, with captured output."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = ForkedCommand(program, stdout=output, stderr=errors, env=env, cwd=cwd)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(
            list(program), status, output.read().decode(), errors.read().decode()
        )


def _run(
    program: list[str], output: Connection, errors: Connection, environment: dict[str, str], folder: str
) -> None:
    """In the new process: become the program."""
    os.dup2(output.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    output.close()
    errors.close()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    from bacalhau_p2p.cli import main

    command, *sys.argv = program if program[0] != COMMAND else (COMMAND, *program)
    try:
        if command == COMMAND:
            main()
        elif sys.argv[0] == "-m":
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - as the interpreter does at the end of a program
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)
