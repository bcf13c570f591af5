"""Content between two nodes on this machine: added to one, then fetched to files from the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

COMMAND = str(Path(sys.executable).parent / "bacalhau-p2p")
MIB = 1 << 20
REPEAT = 3

Say = Callable[..., None]


@dataclass(frozen=True)
class Ran:
    """The output of a command, its wall time and processor time in seconds, and its peak memory in bytes."""

    output: str
    seconds: float
    processor_time: float
    memory: int


@dataclass(frozen=True)
class Served:
    """A node in its own process."""

    pid: int
    port: str
    address: str

    def run(self, *arguments: object, cwd: Path) -> Ran:
        """Run a command against this node."""
        environ = {**os.environ, "BACALHAU_P2P_API_HOST": "127.0.0.1", "BACALHAU_P2P_API_PORT": self.port}
        started = time.perf_counter()
        command = [COMMAND, *map(str, arguments)]
        with subprocess.Popen(command, env=environ, cwd=cwd, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed")
        seconds = time.perf_counter() - started
        return Ran(output.strip(), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)

    def processor_time(self) -> float:
        """Seconds of user and kernel time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        """Resident memory now, in MB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def peak_memory(self) -> int:
        """The most resident memory so far, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


@contextmanager
def served(folder: Path, *flags: str, log: Path | None = None) -> Iterator[Served]:
    """A node with its data in the folder, for the length of the block. It logs to a file, or to stderr."""
    options = ["--swarm-host", "127.0.0.1", "--swarm-port", "0", "--api-port", "0", "--engine", "noop"]
    command = [COMMAND, "serve", "--data-dir", str(folder), *options, *flags]
    with ExitStack() as stack:
        errors = None if log is None else stack.enter_context(log.open("ab"))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        assert process.stdout is not None
        said: dict[str, str] = {}
        while "API" not in said:
            line = process.stdout.readline()
            if not line:
                raise SystemExit("a node did not start")
            name, _, value = line.partition(":")
            said[name] = value.strip()
        yield Served(process.pid, said["API"].rpartition(":")[2], said["Swarm"])


@contextmanager
def two_nodes(rounds: Path) -> Iterator[tuple[Path, Served, Served]]:
    """A new folder in `rounds`, a node, and a second node that is its peer.

    Folders stay until all rounds are over: for some minutes after many files were removed, ext4 takes up
    to ten times as long to create new ones.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(dir=rounds))
        near = stack.enter_context(served(folder / "near"))
        far = stack.enter_context(served(folder / "far", "--peer", near.address))
        yield folder, near, far


@contextmanager
def all_rounds() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bacalhau-p2p-bench-") as folder:
        yield Path(folder)


def small_files(say: Say) -> None:
    """10,000 files of 1 KiB in one folder."""
    title, seconds = "10,000 files of 1 KiB", []
    with all_rounds() as rounds:
        for round_ in range(REPEAT):
            with two_nodes(rounds) as (folder, near, far):
                random = Random(round_)
                (folder / "data").mkdir()
                for number in range(10_000):
                    (folder / "data" / f"{number:05d}.bin").write_bytes(random.randbytes(1024))
                added = near.run("add", folder / "data", cwd=folder)
                before = near.processor_time(), far.processor_time()
                got = far.run("get", added.output, cwd=folder)
                times = _processor_times(before, near, far, got)
                seconds.append(got.seconds)
                if len(list((folder / added.output).iterdir())) != 10_000:
                    raise SystemExit("files are missing")
            say(
                title,
                f"add {added.seconds:5.2f} s",
                f"get {seconds[-1]:5.2f} s",
                f"(best {min(seconds):5.2f} s)",
                f"processor time of get, s: {times}",
            )


def large_file(say: Say, size: int = 256) -> None:
    """One file of 256 MiB, or of 1 GiB: the speed, and the peak memory of each process."""
    title, fastest = f"one file of {size} MiB", 0.0
    with all_rounds() as rounds:
        for round_ in range(REPEAT if size < 1024 else 1):
            with two_nodes(rounds) as (folder, near, far):
                random = Random(round_)
                with (folder / "data").open("wb") as file:
                    for _ in range(size):
                        file.write(random.randbytes(MIB))
                touch_memory(folder, 2 * size * MIB)
                added = near.run("add", folder / "data", cwd=folder)
                touch_memory(folder, 4 * size * MIB)
                before = near.processor_time(), far.processor_time()
                got = far.run("get", added.output, cwd=folder)
                times = _processor_times(before, near, far, got)
                if (folder / added.output).stat().st_size != size * MIB:
                    raise SystemExit("the file has the wrong size")
                memory = [near.peak_memory(), far.peak_memory(), added.memory, got.memory]
            speed = size * MIB / got.seconds / 1e6
            fastest = max(fastest, speed)
            peaks = " ".join(f"{peak / 1e6:.0f}" for peak in memory)
            say(
                title,
                f"add {size * MIB / added.seconds / 1e6:5.0f} MB/s",
                f"get {speed:5.0f} MB/s (best {fastest:5.0f})",
                f"processor time of get, s: {times}",
                f"peak memory, MB: nodes and commands {peaks}",
            )
            for large in (folder / "data", folder / added.output):
                large.unlink()


def touch_memory(folder: Path, size: int) -> None:
    """Make sure that the machine has this many bytes of free page cache, or half of the available memory.

    The host of a virtual machine may take back free memory, and returns it page by page when it is touched:
    one second for 256 MiB on a machine that was measured. That time would be part of the result.
    """
    available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    piece, path = bytes(MIB), folder / "touched"
    with path.open("wb") as file:
        for _ in range(min(size, int(available[1]) * 512 if available else 0) // MIB):
            file.write(piece)
    path.unlink()


def _processor_times(before: tuple[float, float], near: Served, far: Served, got: Ran) -> str:
    """Of the node that has the content, of the node that fetches it, and of the command."""
    nodes = near.processor_time() - before[0], far.processor_time() - before[1]
    return " ".join(f"{seconds:.2f}" for seconds in (*nodes, got.processor_time))
