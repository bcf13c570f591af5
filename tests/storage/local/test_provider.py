from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.errors import SettingsError, StorageError
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.storage.interface import InputSize
from bacalhau_p2p.storage.local.provider import MAX_DEPTH, MAX_PATH, LocalStorage
from bacalhau_p2p.testing.storage import STORAGE_CHECKS, Sample, StorageKit


def local(path: object, **params: object) -> SpecConfig:
    return SpecConfig(type="localdirectory", params={"SourcePath": str(path), **params})


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_bytes(b"a")
    return folder


@pytest.mark.parametrize("check", STORAGE_CHECKS, ids=lambda check: check.__name__)
async def test_local_storage_conforms(check, tmp_path, data):
    (tmp_path / "inputs").mkdir()
    (data / "way-out").symlink_to("/etc")
    (data / "loop").symlink_to("loop")
    kit = StorageKit(
        provider=LocalStorage([str(data), f"{data}/**"]),
        folder=tmp_path / "inputs",
        samples=[
            Sample(source=local(data / "sub"), content={"a": b"a"}),
            Sample(source=local(data / "sub" / "a"), content=b"a"),
        ],
        invalid=[
            (SpecConfig(type="localdirectory"), "Params.SourcePath"),
            (local("relative/path"), "Params.SourcePath"),
            (local(f"{data}/../secret"), "Params.SourcePath"),
            (local("/etc"), "Params.SourcePath"),
            (local(data, ReadWrite=True), "Params.SourcePath"),
            (local(data, ReadWrite="perhaps"), "Params.ReadWrite"),
            (local(data, CreateAs="pipe"), "Params.CreateAs"),
            (local(data, CreateAs="dir"), "Params.CreateAs"),
            (local(f"{data}/{'x' * MAX_PATH}"), "Params.SourcePath"),
            (local(f"{data}/{'x' * 256}"), "Params.SourcePath"),
            (local(f"{data}{'/x' * MAX_DEPTH}"), "Params.SourcePath"),
            (local(f"{data}{'/x' * 100_000}"), "Params.SourcePath"),
            (local(data, CreateAs="x" * 200_000), "Params.CreateAs"),
            (local(data, ReadWrite="x" * 200_000), "Params.ReadWrite"),
        ],
        unusable=[
            (local(data / "way-out"), "Params.SourcePath"),
            (local(data / "loop"), "Params.SourcePath"),
        ],
        absent=local(data / "absent"),
    )
    await check(kit)


@pytest.mark.parametrize("text", ["", "data"])
def test_a_malformed_allow_list_is_a_settings_error(text):
    with pytest.raises(SettingsError, match="allowed local path"):
        LocalStorage(["/data", text])


async def test_nothing_is_allowed_by_default(data):
    fault = LocalStorage().faults(local(data))[0]
    assert str(fault).startswith("Params.SourcePath:")
    assert "not among the local paths" in fault.problem
    assert fault.this_node_only
    assert not await LocalStorage().has_locally(local(data))


async def test_a_symlink_out_of_the_allowed_paths_is_refused(tmp_path, data):
    secret = tmp_path / "secret"
    secret.mkdir()
    (data / "way-out").symlink_to(secret)
    provider = LocalStorage([f"{data}/**"])
    assert provider.faults(local(data / "way-out")) == []
    fault = (await provider.input_faults(local(data / "way-out")))[0]
    assert "symlink out of" in fault.problem
    assert fault.this_node_only
    with pytest.raises(StorageError, match="symlink out of"):
        await provider.prepare(local(data / "way-out"), tmp_path)
    (data / "way-in").symlink_to(data / "sub")
    prepared = await provider.prepare(local(data / "way-in"), tmp_path)
    assert prepared.path == data / "sub"


async def test_a_symlink_into_a_read_only_path_cannot_be_written(tmp_path, data):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "link").symlink_to(data)
    provider = LocalStorage([str(data), f"{shared}/*:rw"])
    assert await provider.input_faults(local(shared / "link")) == []
    assert await provider.input_faults(local(shared / "link", ReadWrite=True)) != []


async def test_an_operator_may_name_a_path_through_a_symlink(tmp_path, data):
    (tmp_path / "mount").symlink_to(data)
    prepared = await LocalStorage([f"{tmp_path}/mount/*"]).prepare(
        local(tmp_path / "mount" / "sub"), tmp_path
    )
    assert prepared.path == data / "sub"


async def test_a_loop_of_symlinks_is_refused(data, tmp_path):
    (data / "loop").symlink_to("loop")
    provider = LocalStorage([f"{data}/**"])
    for path in (data / "loop", data / "loop" / "below"):
        with pytest.raises(StorageError, match="loop of symlinks"):
            await provider.prepare(local(path), tmp_path)


async def test_an_input_is_writable_only_if_allowed_and_requested(data, tmp_path):
    provider = LocalStorage([f"{data}/**:rw"])
    assert (await provider.prepare(local(data / "sub"), tmp_path)).read_only
    assert not (await provider.prepare(local(data / "sub", ReadWrite="true"), tmp_path)).read_only


async def test_a_missing_path_is_created_with_create_as(data, tmp_path):
    provider = LocalStorage([f"{data}/**:rw"])
    assert await provider.has_locally(local(data / "new", ReadWrite=True, CreateAs="dir"))
    folder = await provider.prepare(local(data / "new" / "x", ReadWrite=True, CreateAs="dir"), tmp_path)
    assert folder.path.is_dir()
    file = await provider.prepare(local(data / "f", ReadWrite=True, CreateAs="File"), tmp_path)
    assert file.path.read_bytes() == b""
    with pytest.raises(StorageError, match="does not exist"):
        await provider.prepare(local(data / "none", ReadWrite=True), tmp_path)


def test_the_provider_has_both_of_bacalhaus_names():
    assert LocalStorage().source == "localdirectory"
    assert LocalStorage(source="local").source == "local"


async def test_a_path_with_wildcard_characters_is_found(tmp_path):
    odd = tmp_path / "a[b]{c}*"
    odd.mkdir()
    prepared = await LocalStorage([f"{tmp_path}/*"]).prepare(local(odd), tmp_path)
    assert prepared.path == odd
    prepared = await LocalStorage([f"{tmp_path}/a*/**"]).prepare(local(odd), tmp_path)
    assert prepared.path == odd


# --- sizes ----------------------------------------------------------------------------------


async def test_the_size_of_a_folder_follows_no_symlink(data):
    (data / "b").write_bytes(b"bb")
    (data / "out").symlink_to("/usr")
    (data / "large").symlink_to(data / "b")
    storage = LocalStorage([f"{data}/**"])
    assert await storage.size(local(data)) == InputSize(total=3, local=3)


async def test_a_folder_with_too_many_entries_has_no_size(data, monkeypatch):
    monkeypatch.setattr("bacalhau_p2p.storage.local.provider.MAX_COUNTED", 2)
    storage = LocalStorage([f"{data}/**"])
    assert await storage.size(local(data)) == InputSize(total=1, local=1)
    (data / "b").write_bytes(b"bb")
    assert await storage.size(local(data)) is None


async def test_a_path_that_will_be_created_has_size_zero(data):
    storage = LocalStorage([f"{data}/**:rw"])
    source = local(data / "new", ReadWrite=True, CreateAs="dir")
    assert await storage.size(source) == InputSize(total=0)


@pytest.mark.parametrize("question", ["has_locally", "size", "input_faults"])
async def test_every_question_about_a_hanging_disk_can_be_cancelled(data, monkeypatch, question):
    asked, awake, token = trio.Event(), threading.Event(), trio.lowlevel.current_trio_token()
    main_thread = threading.current_thread()

    def hang(*args, **kwargs):
        assert threading.current_thread() is not main_thread
        token.run_sync_soon(asked.set)
        awake.wait(30)
        return Path("/")

    storage = LocalStorage([f"{data}/**"])
    monkeypatch.setattr(Path, "exists" if question == "has_locally" else "resolve", hang)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(getattr(storage, question), local(data))
            await asked.wait()
            nursery.cancel_scope.cancel()
        assert not awake.is_set(), "the disk was waited for"
    finally:
        awake.set()
