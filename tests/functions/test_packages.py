from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from bacalhau_p2p.errors import InvalidFunction
from bacalhau_p2p.functions import packages
from bacalhau_p2p.functions.packages import load

METADATA = "Metadata-Version: 2.1\nName: greeting\nVersion: 1.2\n"


def wheel(folder: Path, name: str = "greeting-1.2-py3-none-any.whl", **files: str) -> Path:
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return folder / name


def test_a_wheel_brings_its_modules_and_their_data(tmp_path):
    path = wheel(
        tmp_path,
        **{
            "greeting/__init__.py": "text = 'hello'",
            "greeting/words.txt": "hello",
            "single.py": "x = 1",
            "greeting-1.2.data/purelib/more/__init__.py": "y = 2",
            "greeting-1.2.data/scripts/run": "#!python",
            "greeting-1.2.dist-info/METADATA": METADATA,
            "greeting-1.2.dist-info/RECORD": "",
            "../outside.py": "z = 3",
            "/absolute.py": "z = 3",
        },
    )
    loaded = load([path])
    assert loaded.modules == ("greeting", "more", "single")
    assert sorted(loaded.files) == [
        "greeting-1.2.dist-info/METADATA",
        "greeting/__init__.py",
        "greeting/words.txt",
        "more/__init__.py",
        "single.py",
    ]
    assert loaded.digest == load([str(path)]).digest != load([]).digest


def test_an_installed_package_is_taken_as_it_is():
    loaded = load(["iniconfig"])
    assert loaded.modules == ("iniconfig",)
    assert b"class IniConfig" in loaded.files["iniconfig/__init__.py"]
    assert not any("RECORD" in path or path.endswith(".pyc") for path in loaded.files)
    version = next(path for path in loaded.files if path.endswith("METADATA")).split("-")[1]
    number = version.removesuffix(".dist")
    assert load([f"iniconfig=={number.partition('.dist')[0]}"]).digest == loaded.digest


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("iniconfig==0.0.1", r"iniconfig \d\S* is installed here, not 0.0.1"),
        (
            "no-such-package",
            "no-such-package is not installed here: install it, or give the path of its wheel",
        ),
        ("iniconfig>=1", "must be NAME, NAME==VERSION or the path of a wheel"),
        ("pyyaml", r"pyyaml is not pure Python: it has yaml/_yaml\S+\.so, machine code"),
        ("fastapi", "fastapi needs starlette: add it to requires"),
        ("bacalhau-p2p", "is installed here in editable mode: build its wheel"),
        ("missing-1.0-py3-none-any.whl", "cannot be read: "),
        ("native-1.0-cp312-cp312-linux_x86_64.whl", "is not a wheel of pure Python"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_what_to_do(requirement, problem):
    with pytest.raises(InvalidFunction, match=problem):
        load([requirement])


def test_a_wheel_that_hides_machine_code_is_refused(tmp_path):
    path = wheel(tmp_path, **{"greeting/fast.so": "ELF"})
    with pytest.raises(InvalidFunction, match=r"greeting is not pure Python: it has greeting/fast.so"):
        load([path])


def test_what_a_wheel_always_needs_must_be_there_too(tmp_path):
    needs = "Requires-Dist: ini-config>=1\nRequires-Dist: x; extra == 'y'\n"
    path = wheel(tmp_path, **{"greeting.py": "", "greeting-1.2.dist-info/METADATA": METADATA + needs})
    with pytest.raises(InvalidFunction, match="greeting needs ini-config: add it to requires"):
        load([path])
    other = wheel(tmp_path, "ini_config-1-py3-none-any.whl", **{"ini_config.py": ""})
    assert load([path, other]).modules == ("greeting", "ini_config")


def test_packages_have_so_many_bytes_and_files(tmp_path, monkeypatch):
    path = wheel(tmp_path, **{"a.py": "x" * 100, "b.py": ""})
    monkeypatch.setattr(packages, "MAX_SIZE", 99)
    with pytest.raises(InvalidFunction, match="more than 99 bytes"):
        load([path])
    monkeypatch.setattr(packages, "MAX_SIZE", 1000)
    monkeypatch.setattr(packages, "MAX_FILES", 1)
    with pytest.raises(InvalidFunction, match="or 1 files"):
        load([path])
