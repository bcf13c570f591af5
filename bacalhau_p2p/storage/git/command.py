"""Runs git with every feature off that a hostile repository could use.

No configuration of the node or its user, no hooks, no credential helpers, no transports but http and
https, and only to an address that was checked.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
MAX_OUTPUT = 64 * 1024 * 1024
"""Bytes of git's standard output: some hundred thousand names."""
_MAX_ERRORS = 16 * 1024
"""Bytes of git's standard error that are kept: the last ones."""

_CONFIG = {
    "protocol.allow": "never",
    "protocol.http.allow": "always",
    "protocol.https.allow": "always",
    "protocol.version": "2",
    "http.followRedirects": "false",
    "http.proxy": "",
    "credential.helper": "",
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.askPass": "false",
    "core.attributesFile": os.devnull,
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.autocrlf": "false",
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    "fetch.fsckObjects": "true",
    "transfer.bundleURI": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "advice.detachedHead": "false",
}


class GitError(Exception):
    """git failed. The text is its error message."""


class OutputTooLarge(Exception):
    """git printed more than the limit."""


class Git:
    """Commands in one bare repository."""

    def __init__(self, repository: Path, *, resolve: str, file_size: int, idle: float) -> None:
        """`resolve`: `host:port:address[,address]`, the addresses of that host (curl's format).
        `file_size`: bytes of the largest file. `idle`: seconds without a byte."""
        self._repository = repository
        self._file_size = file_size
        self._settings = {
            **_CONFIG,
            "http.curloptResolve": resolve,
            "http.lowSpeedLimit": "1",
            "http.lowSpeedTime": str(max(1, round(idle))),
        }

    async def run(self, *arguments: str, limit: int = MAX_OUTPUT) -> str:
        """The standard output of a command. Raises GitError, OutputTooLarge, OSError.

        When this is cancelled, or this process dies, git and all processes it started are killed.
        """
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = ["git", f"--git-dir={self._repository}", *options, *arguments]
        process = await trio.lowlevel.open_process(
            [sys.executable, "-I", "-S", str(_SUPERVISOR), str(self._file_size), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the node
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        printed, errors = bytearray(), bytearray()
        too_large = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_keep_last, process.stderr, errors)
                async for chunk in process.stdout:
                    printed += chunk
                    if len(printed) > limit:
                        too_large = True
                        await process.stdin.aclose()
                        break
            if not too_large:
                await process.wait()
        finally:
            with trio.CancelScope(shield=True):
                await process.stdin.aclose()
                await process.wait()
                await process.stdout.aclose()
                await process.stderr.aclose()
        if too_large:
            raise OutputTooLarge
        if process.returncode:
            raise GitError(_error_message(bytes(errors)) or f"git exited with status {process.returncode}")
        return printed.decode("utf-8", "surrogateescape")


async def _keep_last(stream: trio.abc.ReceiveStream, into: bytearray) -> None:
    """Read to the end, keeping the last bytes."""
    async for chunk in stream:
        into += chunk
        del into[:-_MAX_ERRORS]


def _environment() -> dict[str, str]:
    """Without configuration, credentials and proxies of the node's user."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "false",
        "GIT_ADVICE": "0",
        **{name: value for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if (value := os.environ.get(name))},
    }


def _error_message(errors: bytes) -> str:
    """The first fatal error, or else the first line, as printable text."""
    lines: Sequence[str] = errors.decode("ascii", "replace").splitlines()
    fatal = [line.partition("fatal: ")[2] for line in lines if "fatal: " in line]
    message = (fatal or [line for line in lines if line.strip()] or [""])[0]
    return "".join(char if char.isprintable() else " " for char in message).strip()[:300]
