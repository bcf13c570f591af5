"""Runs one command, and kills it with all processes it started when the node asks for it or dies.

    python -I -S supervisor.py FILE_SIZE COMMAND [ARGUMENT...]

The node holds the other end of standard input: when that closes, the command's process group is killed. No
file of the command grows beyond FILE_SIZE bytes. The exit status is that of the command; for a signal, 128
plus its number. This is a program of its own because the node has threads and must not fork.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1


def main() -> int:
    size, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None)
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            os.execvp(command[0], command)  # noqa: S606 - the purpose of this program
        except OSError:
            os._exit(127)
    with suppress(OSError):
        os.setpgid(pid, pid)
    ended = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(0, select.POLLIN | select.POLLHUP)
    if ended not in dict(poll.poll()):
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # processes that it left behind
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
