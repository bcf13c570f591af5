"""The git program, as careful as it can be made: no configuration but ours, no hooks, no helpers that ask,
no transport but http and https, and to a checked address only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

_CHILD = Path(__file__).with_name("child.py")
MAX_OUTPUT = 64 * 1024 * 1024
"""Bytes of standard output that are taken from git: some hundred thousand names."""
_MAX_ERRORS = 16 * 1024

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


class GitFault(Exception):
    """git ended with an error. The text is what it said."""


class OutputTooLarge(Exception):
    """git said more than is taken."""


class Git:
    """Commands in one bare repository."""

    def __init__(self, repository: Path, *, resolve: str, file_size: int, idle: float) -> None:
        """`resolve`: `host:port:address[,address]`, where to connect for that host (curl's format).
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
        """What a command prints. Raises GitFault, OutputTooLarge, OSError.

        Cancelled, or this process gone: git and all that it started are gone.
        """
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = ["git", f"--git-dir={self._repository}", *options, *arguments]
        process = await trio.lowlevel.open_process(
            [sys.executable, "-I", "-S", str(_CHILD), str(self._file_size), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the node
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        printed, said = bytearray(), bytearray()
        too_large = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_drain, process.stderr, said)
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
            raise GitFault(_last_words(bytes(said)) or f"git ended with status {process.returncode}")
        return printed.decode("utf-8", "surrogateescape")


async def _drain(stream: trio.abc.ReceiveStream, into: bytearray) -> None:
    """Read to the end, and keep the end."""
    async for chunk in stream:
        into += chunk
        del into[:-_MAX_ERRORS]


def _environment() -> dict[str, str]:
    """No configuration, credentials or proxies of the node's user."""
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


def _last_words(said: bytes) -> str:
    lines: Sequence[str] = said.decode("ascii", "replace").splitlines()
    fatal = [line.partition("fatal: ")[2] for line in lines if "fatal: " in line]
    words = (fatal or [line for line in lines if line.strip()] or [""])[0]
    return "".join(char if char.isprintable() else " " for char in words).strip()[:300]
