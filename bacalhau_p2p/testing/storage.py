"""Conformance suite for storage providers: what every one must do, wherever its inputs come from.

To test a provider, name sources that it can serve in the test, and run each check of `STORAGE_CHECKS`:

    @pytest.mark.parametrize("check", STORAGE_CHECKS, ids=lambda check: check.__name__)
    async def test_storage_conforms(check, tmp_path):
        await check(StorageKit(provider=MyStorage(), folder=tmp_path, samples=[...], ...))

A check passes by returning, and fails by raising AssertionError.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from bacalhau_p2p.errors import Fault, StorageError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.storage.interface import InputSize, PreparedInput, StorageProvider
from bacalhau_p2p.testing.purity import no_io

Tree = Mapping[str, bytes | None]
"""A folder: the relative paths of its files, with their content, and of its folders (None)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A source that can be fetched, and what it contains: the content of a file, or a folder."""

    source: SpecConfig
    content: bytes | Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageKit:
    """What the checks need of a test.

    `invalid` are sources whose parameters `faults` must refuse, each with the path of the fault.
    `unusable` are sources with valid parameters that `input_faults` must refuse, likewise. `absent` is a
    valid source whose data does not exist. `folder` is empty and the kit's own.
    """

    provider: StorageProvider
    folder: Path
    samples: Sequence[Sample]
    invalid: Sequence[tuple[SpecConfig, str]]
    absent: SpecConfig | None
    unusable: Sequence[tuple[SpecConfig, str]] = ()
    hints: Sequence[PeerID] = ()
    patience: float = 30
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def place(self) -> Path:
        """A new empty folder."""
        path = self.folder / f"input-{next(self._numbers)}"
        path.mkdir()
        return path

    def faults(self, source: SpecConfig) -> list[Fault]:
        with no_io():
            return self.provider.faults(source)

    async def input_faults(self, source: SpecConfig) -> list[Fault]:
        with trio.fail_after(self.patience):
            return await self.provider.input_faults(source)

    async def size(self, source: SpecConfig) -> InputSize | None:
        with trio.fail_after(self.patience):
            return await self.provider.size(source, hints=self.hints)

    async def prepare(self, source: SpecConfig, folder: Path) -> PreparedInput:
        with trio.fail_after(self.patience):
            return await self.provider.prepare(source, folder, hints=self.hints)


def content_of(path: Path) -> bytes | Tree:
    """The file or folder at `path`, to be compared with a sample."""
    if path.is_file():
        return path.read_bytes()
    return {
        str(entry.relative_to(path)): entry.read_bytes() if entry.is_file() else None
        for entry in path.rglob("*")
    }


def size_of(content: bytes | Tree) -> int:
    """Bytes of a file, or of all files in a folder."""
    return len(content) if isinstance(content, bytes) else sum(len(each or b"") for each in content.values())


async def check_type_is_lower_case(kit: StorageKit) -> None:
    assert kit.provider.source == kit.provider.source.lower() != ""


async def check_valid_sources_have_no_faults(kit: StorageKit) -> None:
    """`StorageKit.faults` also checks that the parameters need no look at disk or network."""
    for sample in kit.samples:
        assert kit.faults(sample.source) == []
        assert await kit.input_faults(sample.source) == []
    if kit.absent is not None:
        assert kit.faults(kit.absent) == []


async def check_faults_are_named_by_path(kit: StorageKit) -> None:
    for source, path in kit.invalid:
        assert path in [fault.path for fault in kit.faults(source)], f"no fault at {path}: {source}"


async def check_faults_of_the_input_are_named_by_path(kit: StorageKit) -> None:
    for source, path in kit.unusable:
        assert kit.faults(source) == [], f"needs more than the parameters: {source}"
        found = await kit.input_faults(source)
        assert path in [fault.path for fault in found], f"no fault at {path}: {source}"


async def check_invalid_sources_are_not_prepared(kit: StorageKit) -> None:
    for source, _ in (*kit.invalid, *kit.unusable):
        place = kit.place()
        error = await _failure(kit, source, place)
        assert str(error)
        assert list(place.iterdir()) == []


async def check_prepared_data_is_complete(kit: StorageKit) -> None:
    for sample in kit.samples:
        prepared = await kit.prepare(sample.source, kit.place())
        assert content_of(prepared.path) == sample.content


async def check_owned_data_is_in_the_given_folder(kit: StorageKit) -> None:
    for sample in kit.samples:
        place = kit.place()
        prepared = await kit.prepare(sample.source, place)
        if prepared.owned:
            assert place in prepared.path.parents
        else:
            assert list(place.iterdir()) == []


async def check_prepared_data_is_local(kit: StorageKit) -> None:
    for sample in kit.samples:
        await kit.prepare(sample.source, kit.place())
        assert await kit.provider.has_locally(sample.source)


async def check_the_size_of_prepared_data_is_known(kit: StorageKit) -> None:
    for sample in kit.samples:
        await kit.prepare(sample.source, kit.place())
        size = await kit.size(sample.source)
        assert size is not None
        assert size.local == size.total == size_of(sample.content)


async def check_a_size_before_preparing_is_about_right(kit: StorageKit) -> None:
    for sample in kit.samples:
        size = await kit.size(sample.source)
        if size is not None:
            least = size_of(sample.content)
            most = least + least // 8 + 1024 * max(1, len(sample.content))
            assert least <= size.total <= most
            assert 0 <= size.local <= size.total


async def check_executions_do_not_disturb_each_other(kit: StorageKit) -> None:
    sample = kit.samples[0]
    prepared: list[PreparedInput] = []

    async def one(place: Path) -> None:
        prepared.append(await kit.prepare(sample.source, place))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one, kit.place())
    await kit.provider.cleanup(prepared[0])
    for other in prepared[1:]:
        assert content_of(other.path) == sample.content


async def check_cleanup_removes_what_is_owned_and_nothing_else(kit: StorageKit) -> None:
    for sample in kit.samples:
        place = kit.place()
        prepared = await kit.prepare(sample.source, place)
        await kit.provider.cleanup(prepared)
        assert list(place.iterdir()) == []
        if not prepared.owned:
            assert content_of(prepared.path) == sample.content


async def check_a_second_cleanup_is_no_error(kit: StorageKit) -> None:
    prepared = await kit.prepare(kit.samples[0].source, kit.place())
    await kit.provider.cleanup(prepared)
    await kit.provider.cleanup(prepared)


async def check_absent_data_is_a_storage_error(kit: StorageKit) -> None:
    if kit.absent is None:
        return
    assert not await kit.provider.has_locally(kit.absent)
    place = kit.place()
    assert str(await _failure(kit, kit.absent, place))
    assert list(place.iterdir()) == []


async def check_cancelled_preparing_leaves_no_partial_data(kit: StorageKit) -> None:
    for sample in kit.samples:
        place = kit.place()
        with trio.CancelScope() as scope:
            scope.cancel()
            await kit.provider.prepare(sample.source, place, hints=kit.hints)
        left = [entry for entry in place.iterdir() if not entry.name.startswith(".")]
        assert all(content_of(entry) == sample.content for entry in left)


async def check_absent_data_has_no_size(kit: StorageKit) -> None:
    if kit.absent is not None:
        assert await kit.size(kit.absent) is None


async def _failure(kit: StorageKit, source: SpecConfig, place: Path) -> StorageError:
    try:
        await kit.prepare(source, place)
    except StorageError as error:
        return error
    raise AssertionError(f"prepared, but must fail: {source}")


STORAGE_CHECKS: Sequence[Callable[[StorageKit], Awaitable[None]]] = (
    check_type_is_lower_case,
    check_valid_sources_have_no_faults,
    check_faults_are_named_by_path,
    check_faults_of_the_input_are_named_by_path,
    check_invalid_sources_are_not_prepared,
    check_prepared_data_is_complete,
    check_owned_data_is_in_the_given_folder,
    check_a_size_before_preparing_is_about_right,
    check_prepared_data_is_local,
    check_the_size_of_prepared_data_is_known,
    check_executions_do_not_disturb_each_other,
    check_cleanup_removes_what_is_owned_and_nothing_else,
    check_a_second_cleanup_is_no_error,
    check_absent_data_is_a_storage_error,
    check_absent_data_has_no_size,
    check_cancelled_preparing_leaves_no_partial_data,
)
"""Every check, in the order in which they are best read."""
