"""Compiled modules are native code: one that this node did not write is never loaded."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.executors.interface import MountedInput
from bacalhau_p2p.executors.wasm.compiled_cache import HEADER, CompiledCache
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.testing.executors import ExecutorKit, Program
from tests.support.programs.wasm_programs import PROBE


@asynccontextmanager
async def opened(tmp_path: Path, name: str = "kit") -> AsyncIterator[ExecutorKit]:
    """An executor on the folder `cache`; its programs are `say`: none of the suite's own checks is run."""
    executor = WasmExecutor(tmp_path / "cache")
    (tmp_path / name).mkdir()
    try:
        yield ExecutorKit(executor=executor, programs=None, folder=tmp_path / name)  # type: ignore[arg-type]
    finally:
        await executor.aclose()


def say(text: str, module: Path = PROBE) -> Program:
    return Program(
        engine=SpecConfig(type="wasm", params={"EntryModule": "m.wasm", "Parameters": ["say", text, ""]}),
        inputs=[MountedInput(path=module, target="/modules/m.wasm")],
    )


def compiled(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*.compiled"))


async def test_a_module_is_compiled_once_into_private_files(tmp_path: Path) -> None:
    async with opened(tmp_path) as kit:
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(kit.run, kit.request(say(str(number))))
        (first,) = compiled(tmp_path)
        inode = first.stat().st_ino
    async with opened(tmp_path, "after restart") as kit:
        assert await kit.run(kit.request(say("again"))) == RunOutput(stdout=b"again")
        assert [path.stat().st_ino for path in compiled(tmp_path)] == [inode]
        await kit.run(kit.request(say("other settings"), deterministic=True))
        assert len(compiled(tmp_path)) == 2
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "cache").iterdir()}
    assert set(modes.values()) == {0o600}
    assert set(modes) == {"key", "lock", *(path.name for path in compiled(tmp_path))}
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def flip_code(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(HEADER + len(data) // 2, len(data), 64):
        data[at] ^= 0xFF
    path.write_bytes(data)


def flip_hash(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def remove(path: Path) -> None:
    path.unlink()


def exchange(path: Path) -> None:
    """Whole and signed by this node, but for another module."""
    other = next(entry for entry in path.parent.glob("*.compiled") if entry != path)
    path.write_bytes(other.read_bytes())


def transplant(path: Path) -> None:
    """Sound code, but of another module."""
    other = next(entry for entry in path.parent.glob("*.compiled") if entry != path)
    path.write_bytes(path.read_bytes()[:HEADER] + other.read_bytes()[HEADER:])


@pytest.mark.parametrize("tamper", [flip_code, flip_hash, truncate, empty, remove, exchange, transplant])
@pytest.mark.parametrize("prepared", [False, True], ids=["before preparation", "before the run"])
async def test_a_tampered_module_is_compiled_again(
    tmp_path: Path, tamper: Callable[[Path], None], prepared: bool
) -> None:
    other = tmp_path / "other.wasm"
    other.write_bytes(b"\0asm\x01\0\0\0")
    async with opened(tmp_path) as kit:
        await kit.run(kit.request(say("first")))
        (path,) = compiled(tmp_path)
        sound = path.read_bytes()[HEADER:]
        await kit.executor.prepare(kit.request(say("", other)))
        asked = kit.request(say("sound"))
        if prepared:
            await kit.executor.prepare(asked)
        tamper(path)
        if not prepared:
            await kit.executor.prepare(asked)
        assert await kit.executor.run(asked) == RunOutput(stdout=b"sound")
        assert await kit.run(kit.request(say("still"))) == RunOutput(stdout=b"still")
        assert path.read_bytes()[HEADER:] == sound


async def test_a_changed_module_is_compiled_separately(tmp_path: Path) -> None:
    module = tmp_path / "changing.wasm"
    module.write_bytes(PROBE.read_bytes())
    async with opened(tmp_path) as kit:
        await kit.run(kit.request(say("x", module)))
        module.write_bytes(PROBE.read_bytes() + b"\0\x02\x01x")  # a custom section more
        assert await kit.run(kit.request(say("y", module))) == RunOutput(stdout=b"y")
        assert len(compiled(tmp_path)) == 2


@pytest.fixture
def cache(tmp_path: Path) -> CompiledCache:
    cache = CompiledCache(tmp_path / "cache", limit=3 * (HEADER + 100))
    cache.open()
    return cache


def shared(tmp_path: Path) -> CompiledCache:
    """The cache of another node with the same folder."""
    other = CompiledCache(tmp_path / "cache")
    other.open()
    return other


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir())


def put(cache: CompiledCache, key: str) -> Path:
    with cache.writing(key) as fd:
        assert fd is not None
        os.write(fd, bytes(100))
        return cache.put(key, fd, "00" * 32).path


def test_the_least_recently_used_modules_are_removed_first(cache: CompiledCache) -> None:
    for age, key in enumerate("abc"):
        path = put(cache, key)
        os.utime(path, (age, age))
    assert cache.get("a") is not None  # used just now
    put(cache, "d")
    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]


def test_an_unfinished_module_is_removed(cache: CompiledCache, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), cache.writing("a"):
        raise ZeroDivisionError
    assert names(tmp_path) == ["key", "lock"]


def test_unfinished_modules_of_an_earlier_process_are_removed(cache: CompiledCache, tmp_path: Path) -> None:
    left = tmp_path / "cache" / "0123.new"
    left.write_bytes(b"half")
    shared(tmp_path)
    assert not left.exists()


def test_nodes_that_share_a_folder_use_what_each_of_them_compiled(
    cache: CompiledCache, tmp_path: Path
) -> None:
    other = shared(tmp_path)
    put(cache, "a")
    put(other, "b")
    assert None not in (other.get("a"), cache.get("b"))


def test_a_module_is_compiled_by_one_node_at_a_time(cache: CompiledCache, tmp_path: Path) -> None:
    other = shared(tmp_path)
    with cache.writing("a"), other.writing("a") as mine, other.writing("b") as another:
        assert (mine, another is not None) == (None, True)
    assert names(tmp_path) == ["key", "lock"]
    with other.writing("a") as mine:
        assert mine is not None


def test_a_node_that_starts_leaves_alone_what_another_one_compiles(
    cache: CompiledCache, tmp_path: Path
) -> None:
    with cache.writing("a") as fd:
        assert fd is not None
        os.write(fd, bytes(100))
        other = shared(tmp_path)
        cache.put("a", fd, "00" * 32)
    assert other.get("a") is not None


def test_what_a_node_was_compiling_when_it_died_is_begun_again(cache: CompiledCache, tmp_path: Path) -> None:
    (tmp_path / "cache" / "a.new").write_bytes(b"x" * 1000)
    assert put(cache, "a").stat().st_size == HEADER + 100


def test_two_nodes_that_begin_at_once_have_one_secret(tmp_path: Path) -> None:
    caches = [CompiledCache(tmp_path / "cache") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(CompiledCache.open, caches))
    put(caches[0], "a")
    assert all(each.get("a") for each in caches)


def test_a_secret_that_others_can_read_is_replaced(cache: CompiledCache, tmp_path: Path) -> None:
    put(cache, "a")
    again = CompiledCache(tmp_path / "cache")
    again.open()
    assert again.get("a") is not None
    (tmp_path / "cache" / "key").chmod(0o644)
    careful = CompiledCache(tmp_path / "cache")
    careful.open()
    assert careful.get("a") is None
    assert (tmp_path / "cache" / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"short"])
def test_an_incomplete_secret_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "key").write_bytes(content)
    (tmp_path / "cache" / "key").chmod(0o600)
    CompiledCache(tmp_path / "cache").open()
    assert len((tmp_path / "cache" / "key").read_bytes()) == 32
