from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from bacalhau_p2p.executors.wasm.child.sealed_modules import LEAST_SIZE, SealedModules

SKIP = 64


def module(folder: Path, name: str, size: int = LEAST_SIZE) -> dict[str, Any]:
    code = (name.encode() * size)[:size]
    (folder / name).write_bytes(b"h" * SKIP + code)
    return {
        "key": name,
        "compiled": str(folder / name),
        "skip": SKIP,
        "compiled_sha256": hashlib.sha256(code).hexdigest(),
    }


def test_code_is_kept_from_its_second_use_on(tmp_path):
    sealed, used = SealedModules(), module(tmp_path, "a")
    assert sealed.descriptor(used) == -1
    fd = sealed.descriptor(used)
    assert hashlib.sha256(os.pread(fd, LEAST_SIZE + 1, 0)).hexdigest() == used["compiled_sha256"]
    Path(used["compiled"]).unlink()
    assert sealed.descriptor(used) == fd


def test_kept_code_cannot_be_changed(tmp_path):
    sealed, used = SealedModules(), module(tmp_path, "a")
    sealed.descriptor(used)
    fd = sealed.descriptor(used)
    for change in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 1)):
        with pytest.raises(PermissionError):
            change()
    assert not os.get_inheritable(fd)


def test_code_that_was_changed_is_not_kept(tmp_path):
    sealed, used = SealedModules(), module(tmp_path, "a")
    Path(used["compiled"]).write_bytes(b"h" * SKIP + b"x" * LEAST_SIZE)
    assert [sealed.descriptor(used) for _ in range(3)] == [-1, -1, -1]


def test_small_code_and_code_that_is_gone_is_not_kept(tmp_path):
    sealed, small = SealedModules(), module(tmp_path, "a", LEAST_SIZE - 1)
    gone = module(tmp_path, "b")
    Path(gone["compiled"]).unlink()
    assert [sealed.descriptor(each) for each in (small, small, gone, gone)] == [-1] * 4


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    sealed = SealedModules(limit=2 * LEAST_SIZE)
    a, b, c = (module(tmp_path, name) for name in "abc")
    for each in (a, b, c, a, b, a, c):
        sealed.descriptor(each)
    for each in (a, b, c):
        Path(each["compiled"]).unlink()
    assert [sealed.descriptor(each) >= 0 for each in (a, b, c)] == [True, False, True]
