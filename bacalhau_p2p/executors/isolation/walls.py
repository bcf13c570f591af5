"""The walls around the processes of jobs: what this machine can build, and how a process goes behind them.

A warm process calls `Walls.build` once, and then `fork` for each job. The process of a job opens what it
may use, and calls `enter` before it touches anything of a stranger's.
"""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bacalhau_p2p.executors.isolation import kernel, landlock, seccomp

USER = "user"
"""A user and group of its own for each job."""
CAPABILITIES = "capabilities"
NETWORK = "network"
IPC = "ipc"
PID = "pid"
MOUNT = "mount"
LANDLOCK = "landlock"
SECCOMP = "seccomp"
ALL_WALLS = frozenset({USER, CAPABILITIES, NETWORK, IPC, PID, MOUNT, LANDLOCK, SECCOMP})

FIRST_USER = 1_879_048_192
"""The id of a job's user is this plus its process id, so no other job on this machine has it. systemd assigns
no ids from here to 2**31 (see its UIDS-GIDS), nor does anybody else that we know of."""
THREADS_LIMIT = 64
"""Threads of one process, beside one for each core, where it has a user of its own."""
_NOBODY = 65534
_FAILED = 1


@dataclass(frozen=True, slots=True)
class Walls:
    """What the warm process prepared. Its descriptors are inherited by the processes of jobs."""

    names: tuple[str, ...]
    """The walls that this machine has."""
    landlock_version: int
    process: int
    """A pidfd of the warm process."""
    pid_namespace: int
    """The warm process's own; -1 without the wall."""
    mount_namespace: int
    """One that contains nothing but an empty folder; -1 without the wall."""
    first_user: int
    """See FIRST_USER; `nobody` where this machine does not let us use high ids; 0 without the wall."""

    @classmethod
    def build(cls) -> Walls:
        """Move this process, which has one thread, into namespaces of its own, and find out what there is.

        Without root's rights this needs a user namespace, and the caller goes on in a new process: the one
        that was started waits for it.
        """
        root = os.geteuid() == 0
        if not root and _works(lambda: kernel.unshare(kernel.CLONE_NEWUSER)):
            _enter_user_namespace()
        names = [CAPABILITIES]
        pid_namespace = mount_namespace = -1
        for wall, flag in ((NETWORK, kernel.CLONE_NEWNET), (IPC, kernel.CLONE_NEWIPC)):
            if _succeeds(lambda flag=flag: kernel.unshare(flag)):  # type: ignore[misc]
                names.append(wall)
        if _works(_test_pid_namespace):
            names.append(PID)
            pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        if _works(_empty_mount_namespace):
            names.append(MOUNT)
            mount_namespace = _empty_mount_namespace()
        first_user = 0
        if root:
            first_user = next((user for user in (FIRST_USER, _NOBODY) if _can_become(user)), 0)
            if first_user:
                names.append(USER)
        version = landlock.version()
        if version:
            names.append(LANDLOCK)
        if seccomp.supported() and _works(lambda: _restrict_calls()):
            names.append(SECCOMP)
            seccomp.program_for(1)  # the process id that jobs have in their namespace
        _succeeds(kernel.narrow_capabilities)  # nothing is started behind the walls; seccomp sees to it
        return cls(
            names=tuple(sorted(names)),
            landlock_version=version,
            process=os.pidfd_open(os.getpid()),
            pid_namespace=pid_namespace,
            mount_namespace=mount_namespace,
            first_user=first_user,
        )

    def fork(self) -> int:
        """As `os.fork`, in a new process namespace where there are any. Raises OSError."""
        if self.pid_namespace < 0:
            return os.fork()
        kernel.unshare(kernel.CLONE_NEWPID)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid != 0:
                kernel.setns(self.pid_namespace, kernel.CLONE_NEWPID)
        return pid

    def follow_parent(self) -> None:
        """End this process when the warm process ends, also when that is over already."""
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        poll = select.poll()
        poll.register(self.process, select.POLLIN)
        if poll.poll(0):
            os._exit(_FAILED)

    def user(self) -> int | None:
        """The user and group of this process, which was forked for a job, once it is behind the walls."""
        if not self.first_user:
            return None
        if self.first_user == _NOBODY:
            return _NOBODY
        return self.first_user + int(os.readlink("/proc/self"))  # noqa: PTH115

    def enter(self, *, readable: Sequence[str], writable: Sequence[str]) -> None:
        """Go behind the walls, for good: this process, which has one thread, and every one it starts.

        What is open stays open; of all other files only those below these folders can be used, where
        Landlock is there. Raises OSError: then this process must end.
        """
        if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208
            raise OSError("a process of several threads cannot go behind walls")
        user = self.user()
        folders = [_path_only(path) for path in (*readable, *writable)]
        if self.mount_namespace >= 0:
            kernel.setns(self.mount_namespace, kernel.CLONE_NEWNS)
        if user is not None:
            threads = (os.cpu_count() or 1) + THREADS_LIMIT
            if user != _NOBODY:  # of whom there may be other processes
                resource.setrlimit(resource.RLIMIT_NPROC, (threads, threads))
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        self.follow_parent()  # a second time: a change of the user cancels it
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        if self.landlock_version:
            landlock.restrict(
                self.landlock_version,
                readable=folders[: len(readable)],
                writable=folders[len(readable) :],
            )
        for fd in (*folders, self.process, self.mount_namespace, self.pid_namespace):
            if fd >= 0:
                os.close(fd)
        if SECCOMP in self.names:
            seccomp.restrict(os.getpid())

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Those that `enter` needs, and closes."""
        return tuple(fd for fd in (self.process, self.mount_namespace, self.pid_namespace) if fd >= 0)


def _path_only(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _succeeds(step: Callable[[], object]) -> bool:
    try:
        step()
    except OSError:
        return False
    return True


def _works(step: Callable[[], object]) -> bool:
    """Whether this can be done, tried in a process of its own."""
    pid = os.fork()
    if pid == 0:
        status = _FAILED
        try:
            step()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def _enter_user_namespace() -> None:
    """Get all capabilities over new namespaces, and none over the machine. The user stays the same."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    if not _works(lambda: kernel.unshare(kernel.CLONE_NEWPID)):
        return
    started = os.pidfd_open(os.getpid())
    kernel.unshare(kernel.CLONE_NEWPID)
    pid = os.fork()
    if pid:  # only a process that was forked into a process namespace can make more of them
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    poll = select.poll()
    poll.register(started, select.POLLIN)
    if poll.poll(0):
        os._exit(_FAILED)
    os.close(started)


def _test_pid_namespace() -> None:
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    kernel.unshare(kernel.CLONE_NEWPID)
    kernel.setns(own, kernel.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _empty_mount_namespace() -> int:
    """A mount namespace whose root is an empty folder. This process stays in its own namespace."""
    own, root, folder = (
        os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in ("/proc/self/ns/mnt", "/", ".")
    )
    try:
        kernel.unshare(kernel.CLONE_NEWNS)
        empty = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        kernel.mount("", "/", kernel.MS_REC | kernel.MS_PRIVATE)
        flags = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        kernel.mount("tmpfs", "/proc", flags, "size=4k,mode=555")  # any folder that is always there
        kernel.replace_root("/proc")
        kernel.setns(own, kernel.CLONE_NEWNS)
        os.fchdir(root)  # which need not be that of the namespace
        os.chroot(".")
        os.fchdir(folder)
    finally:
        for fd in (own, root, folder):
            os.close(fd)
    return empty


def _can_become(user: int) -> bool:
    def become() -> None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)

    return _works(become)


def _restrict_calls() -> None:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.restrict(os.getpid())
