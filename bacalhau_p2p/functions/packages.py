"""Packages that a function needs: pure Python, from wheels or from what is installed here."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from bacalhau_p2p.errors import InvalidFunction

MAX_SIZE = 64 * 1024 * 1024
"""Bytes of all packages of a function."""
MAX_FILES = 10_000
"""Of all packages of a function."""

_NATIVE = (".so", ".pyd", ".dll", ".dylib")
_LEFT_OUT = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
_REQUIREMENT = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(?:==\s*([\w.!+-]+))?\s*")
_NEEDED = re.compile(r"\s*([A-Za-z0-9][\w.-]*)[^;]*(;.*)?")


@dataclass(frozen=True, slots=True)
class Packages:
    """Files of packages by their path, and the modules and packages at the top."""

    files: dict[str, bytes]
    modules: tuple[str, ...]
    digest: str
    """Of all files."""


def load(requirements: Sequence[str | Path]) -> Packages:
    """The packages that are required: paths of wheels, or NAME or NAME==VERSION of what is installed here.

    Nothing is downloaded. Blocks. Raises InvalidFunction for what is not there, is not pure Python, or needs
    a package that is not in the list.
    """
    found = [_wheel(Path(each)) if _is_path(each) else _installed(str(each)) for each in requirements]
    names = {_normal(package.name) for package in found}
    files: dict[str, bytes] = {}
    for package in found:
        for needed in package.needs:
            if _normal(needed) not in names:
                raise InvalidFunction(f"{package.name} needs {needed}: add it to requires")
        files.update(package.files)
        if len(files) > MAX_FILES or sum(map(len, files.values())) > MAX_SIZE:
            raise InvalidFunction(
                f"the packages have more than {MAX_SIZE // 1024**2} MiB or {MAX_FILES} files: add them as an"
                " input, and put its path on sys.path in the function"
            )
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{len(name)} {len(content)} {name}".encode() + content)
    return Packages(files, tuple(sorted(set(_modules(files)))), digest.hexdigest())


@dataclass(frozen=True, slots=True)
class _Package:
    name: str
    needs: Sequence[str]
    files: dict[str, bytes]


def _is_path(requirement: str | Path) -> bool:
    return isinstance(requirement, Path) or requirement.endswith(".whl")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _wheel(path: Path) -> _Package:
    name = path.name.partition("-")[0]
    if not path.name.endswith("-none-any.whl"):
        raise InvalidFunction(f"{path.name} is not a wheel of pure Python, whose name ends in -none-any.whl")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [each for each in archive.infolist() if not each.is_dir()]
            if sum(each.file_size for each in entries) > MAX_SIZE or len(entries) > MAX_FILES:
                raise InvalidFunction(f"{path.name} has more than {MAX_SIZE} bytes or {MAX_FILES} files")
            files = {
                inside: archive.read(each)
                for each in entries
                if (inside := _path_in_package(each.filename)) is not None
            }
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise InvalidFunction(f"the wheel {path} cannot be read: {error}") from None
    metadata = next((text for inside, text in files.items() if _is_metadata(inside)), b"")
    lines = metadata.decode(errors="replace").partition("\n\n")[0].splitlines()
    needs = [line.partition(":")[2] for line in lines if line.startswith("Requires-Dist:")]
    return _Package(name, list(_always_needed(needs)), _pure(name, files))


def _installed(requirement: str) -> _Package:
    parsed = _REQUIREMENT.fullmatch(requirement)
    if parsed is None:
        raise InvalidFunction(f"requires {requirement!r}: must be NAME, NAME==VERSION or the path of a wheel")
    name, version = parsed[1], parsed[2]
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise InvalidFunction(
            f"{name} is not installed here: install it, or give the path of its wheel in requires"
        ) from None
    if version and found.version != version:
        raise InvalidFunction(f"{name} {found.version} is installed here, not {version}")
    return _Package(name, list(_always_needed(found.requires or ())), _pure(name, _files_of(found, name)))


def _files_of(found: Distribution, name: str) -> dict[str, bytes]:
    files = {}
    for path in found.files or ():
        if path.suffix == ".pth" or path.name.startswith("__editable__"):
            raise InvalidFunction(
                f"{name} is installed here in editable mode: build its wheel, and put the path of"
                " the wheel in requires"
            )
        inside = _path_in_package(str(path))
        if inside is not None and path.suffix != ".pyc":
            files[inside] = Path(str(path.locate())).read_bytes()
    return files


def _path_in_package(name: str) -> str | None:
    """Where a file of a wheel belongs; None if it does not belong among the modules."""
    path = PurePosixPath(name)
    if len(path.parts) > 2 and path.parts[0].endswith(".data"):
        if path.parts[1] not in ("purelib", "platlib"):
            return None
        path = PurePosixPath(*path.parts[2:])
    if path.is_absolute() or ".." in path.parts or path.name in _LEFT_OUT or "\\" in name:
        return None
    return str(path)


def _is_metadata(path: str) -> bool:
    return path.count("/") == 1 and path.endswith(".dist-info/METADATA")


def _pure(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    native = next((path for path in files if path.endswith(_NATIVE)), None)
    if native is not None:
        raise InvalidFunction(
            f"{name} is not pure Python: it has {native}, machine code that WebAssembly cannot run"
        )
    return files


def _always_needed(requirements: Iterable[str]) -> Iterator[str]:
    """The names of packages that are needed without further conditions."""
    for each in requirements:
        parsed = _NEEDED.fullmatch(each)
        if parsed is not None and not parsed[2]:
            yield parsed[1]


def _modules(files: Iterable[str]) -> Iterator[str]:
    for path in map(PurePosixPath, files):
        if path.suffix == ".py":
            yield path.parts[0].removesuffix(".py")
