from __future__ import annotations

import threading
from random import Random

import pytest

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.partition_keys import Chooser
from bacalhau_p2p.storage.fetching.input_cache import InputCache
from bacalhau_p2p.storage.interface import InputSize
from bacalhau_p2p.storage.ipfs import provider
from bacalhau_p2p.storage.ipfs.provider import LEAST_KEPT, IpfsStorage
from bacalhau_p2p.testing.storage import STORAGE_CHECKS, Sample, StorageKit
from tests.support.blocks.dag_makers import expanding_folder

NOWHERE = CID.of(RAW, b"nobody has this")


def ipfs(cid: object) -> SpecConfig:
    return SpecConfig(type="ipfs", params={"CID": str(cid)})


@pytest.fixture
async def samples(content, tmp_path):
    folder = tmp_path / "data"
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "sub" / "a.txt").write_bytes(b"a")
    (tmp_path / "file").write_bytes(b"content")
    root = (await content.add(folder, pin_owner="test")).cid
    file = (await content.add(tmp_path / "file", pin_owner="test")).cid
    return [
        Sample(source=ipfs(root), content={"sub": None, "sub/empty": None, "sub/a.txt": b"a"}),
        Sample(source=ipfs(file), content=b"content"),
        Sample(source=ipfs(f"{root}/sub/a.txt"), content=b"a"),
        Sample(source=ipfs(f"ipfs://{root}/sub/"), content={"empty": None, "a.txt": b"a"}),
    ]


@pytest.mark.parametrize("check", STORAGE_CHECKS, ids=lambda check: check.__name__)
async def test_ipfs_storage_conforms(check, content, samples, tmp_path):
    (tmp_path / "inputs").mkdir()
    invalid = [
        (SpecConfig(type="ipfs"), "Params.CID"),
        (ipfs(""), "Params.CID"),
        (ipfs("ipfs://notacid"), "Params.CID"),
        (ipfs(f"{NOWHERE}/../x"), "Params.CID"),
        (ipfs(CID.of(0x71, b"dag-cbor")), "Params.CID"),
        (SpecConfig(type="ipfs", params={"CID": 7}), "Params.CID"),
    ]
    await check(
        StorageKit(
            provider=IpfsStorage(content),
            folder=tmp_path / "inputs",
            samples=samples,
            invalid=invalid,
            absent=ipfs(NOWHERE),
        )
    )


async def test_a_missing_cid_is_reported_with_the_number_of_peers_asked(content, tmp_path):
    with pytest.raises(StorageError, match=f"no peer has {NOWHERE}: asked 1 peer") as caught:
        await IpfsStorage(content).prepare(ipfs(NOWHERE), tmp_path, hints=[PeerID("requester")])
    assert not caught.value.permanent


async def test_the_local_part_of_incomplete_content_is_measured(content, block_store, tmp_path):
    (tmp_path / "data").mkdir()
    for number in range(3):
        (tmp_path / "data" / f"{number}").write_bytes(Random(number).randbytes(100_000))
    root = (await content.add(tmp_path / "data", pin_owner="test")).cid
    assert await IpfsStorage(content).size(ipfs(root)) == InputSize(
        total=300_000, local=300_000, disk=300_000
    )
    block_store.delete(CID.of(RAW, Random(1).randbytes(100_000)))
    size = await IpfsStorage(content).size(ipfs(root))
    assert size is not None
    assert 300_000 <= size.total <= 301_000
    assert (size.local, size.disk) == (200_000, 2 * size.total - 200_000)


async def test_content_that_cannot_be_files_is_a_permanent_failure(content, tmp_path):
    with pytest.raises(StorageError, match="codec 0x71") as caught:
        await IpfsStorage(content).prepare(ipfs(CID.of(0x71, b"x")), tmp_path)
    assert caught.value.permanent


async def test_a_path_that_does_not_exist_is_a_permanent_failure(content, samples, tmp_path):
    root = samples[0].source.params["CID"]
    with pytest.raises(StorageError, match=f"path 'sub/none' not found in {root}") as caught:
        await IpfsStorage(content).prepare(ipfs(f"{root}/sub/none"), tmp_path)
    assert caught.value.permanent
    with pytest.raises(StorageError, match="not found"):
        await IpfsStorage(content).size(ipfs(f"{root}/none"))
    assert not await IpfsStorage(content).has_locally(ipfs(f"{root}/none"))


async def test_symlinks_inside_an_input_are_kept_and_others_left_out(content, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_text("a")
    (folder / "good").symlink_to("a")
    (folder / "bad").symlink_to("/etc/passwd")
    added = await content.add(folder, pin_owner="test")
    (tmp_path / "input").mkdir()
    prepared = await IpfsStorage(content).prepare(ipfs(added.cid), tmp_path / "input")
    assert sorted(path.name for path in prepared.path.iterdir()) == ["a", "good"]
    assert (prepared.path / "good").read_text() == "a"


async def test_larger_content_is_shared_from_the_third_execution_on(content, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "large").write_bytes(Random(1).randbytes(LEAST_KEPT))
    cid = (await content.add(tmp_path / "data", pin_owner="test")).cid
    storage = IpfsStorage(content, cache=InputCache(tmp_path / "cache", budget=10 * LEAST_KEPT))
    prepared = []
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        prepared.append(await storage.prepare(ipfs(cid), tmp_path / str(number), max_bytes=LEAST_KEPT))
    files = [(each.path / "large").stat().st_ino for each in prepared]
    assert files[0] != files[1] == files[2] == files[3]
    for each in prepared:
        assert (each.path / "large").read_bytes() == (tmp_path / "data" / "large").read_bytes()
    for each in prepared[1:3]:
        await storage.cleanup(each)
    assert (prepared[3].path / "large").stat().st_size == LEAST_KEPT
    (tmp_path / "less").mkdir()
    with pytest.raises(StorageError, match="is reserved for inputs"):
        await storage.prepare(ipfs(cid), tmp_path / "less", max_bytes=LEAST_KEPT - 1)


async def test_only_an_input_that_is_the_whole_of_its_cid_names_it(content, samples, tmp_path):
    sources = [samples[0].source, samples[2].source]
    part = {"Partition": {"Type": "object", "Index": 1, "Count": 2}}
    sources.append(sources[0].replace(params={**sources[0].params, **part}))
    named = []
    for number, source in enumerate(sources):
        (tmp_path / str(number)).mkdir()
        named.append((await IpfsStorage(content).prepare(source, tmp_path / str(number))).content)
    root, path = sources[0].params["CID"], str(CID.of(RAW, b"a"))
    assert named == [root, path, ""]


async def test_small_content_is_not_kept(content, samples, tmp_path):
    storage = IpfsStorage(content, cache=InputCache(tmp_path / "cache", budget=10 * LEAST_KEPT))
    prepared = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        prepared.append(await storage.prepare(samples[1].source, tmp_path / str(number)))
    assert len({each.path.stat().st_ino for each in prepared}) == 3


async def test_without_room_in_the_cache_everything_is_written(content, tmp_path):
    (tmp_path / "large").write_bytes(b"x" * LEAST_KEPT)
    cid = (await content.add(tmp_path / "large", pin_owner="test")).cid
    storage = IpfsStorage(content, cache=InputCache(tmp_path / "cache", budget=0))
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        prepared = await storage.prepare(ipfs(cid), tmp_path / str(number))
        assert prepared.path.stat().st_nlink == 1


async def test_content_that_expands_to_more_than_was_reserved_is_not_written(content, block_store, tmp_path):
    root, blocks = expanding_folder(levels=2, width=60, leaf=1_000_000, claim=1)  # 3.6 GB of 1 MB
    block_store.put_all_verified(blocks.items())
    storage = IpfsStorage(content)
    assert (await content.claimed_size(root)) == 60
    reason = f"{root} needs 3.6 GB of disk; 1 MB is reserved for inputs"
    with pytest.raises(StorageError, match=reason) as caught:
        await storage.prepare(ipfs(root), tmp_path / "input", max_bytes=1_000_000)
    assert not caught.value.permanent
    assert not (tmp_path / "input").exists()


async def test_an_input_may_fill_what_was_reserved(content, samples, tmp_path):
    size = await IpfsStorage(content).size(samples[1].source)
    assert size is not None
    prepared = await IpfsStorage(content).prepare(samples[1].source, tmp_path, max_bytes=size.disk)
    assert prepared.path.read_bytes() == b"content"


def part(cid, index, count, **how):
    partition = {"Type": "object", "Index": index, "Count": count, **how}
    return SpecConfig(type="ipfs", params={"CID": str(cid), "Partition": partition})


async def test_each_file_of_a_divided_folder_is_in_one_part(content, tmp_path):
    (tmp_path / "data" / "sub").mkdir(parents=True)
    for number in range(40):
        (tmp_path / "data" / ("sub" if number % 2 else "") / f"{number}.txt").write_text(str(number))
    root = (await content.add(tmp_path / "data", pin_owner="test")).cid
    storage, found = IpfsStorage(content), []
    for index in range(3):
        (tmp_path / str(index)).mkdir()
        prepared = await storage.prepare(part(root, index, 3), tmp_path / str(index))
        found += [str(path.relative_to(prepared.path)) for path in prepared.path.rglob("*.txt")]
        assert all(path.read_text() == path.stem for path in prepared.path.rglob("*.txt"))
    assert sorted(found) == sorted(f"sub/{n}.txt" if n % 2 else f"{n}.txt" for n in range(40))


async def test_the_files_of_a_part_are_fetched_together(content, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for number in range(40):
        (tmp_path / "data" / f"{number}.txt").write_text(str(number))
    root = (await content.add(tmp_path / "data", pin_owner="test")).cid
    fetched, fetch = [], content.fetch

    async def counted(cid, *, parts, **options):
        fetched.append((cid, len(parts)))
        await fetch(cid, parts=parts, **options)

    monkeypatch.setattr(content, "fetch", counted)
    (tmp_path / "to").mkdir()
    prepared = await IpfsStorage(content).prepare(part(root, 1, 2), tmp_path / "to")
    assert fetched == [(root, len(list(prepared.path.iterdir())))]


async def test_before_it_is_known_which_part_it_is_the_largest_counts(content, block_store, tmp_path):
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    sizes = {f"{'sub/' if number % 2 else ''}{number}": 1000 * number for number in range(9)}
    sizes["large"] = 700_000  # of several blocks
    for name, size in sizes.items():
        (data / name).write_bytes(Random(name).randbytes(size))
    root = (await content.add(data, pin_owner="test")).cid
    storage, shares = IpfsStorage(content), []
    for index in range(3):
        (tmp_path / str(index)).mkdir()
        prepared = await storage.prepare(part(root, index, 3), tmp_path / str(index))
        shares.append(sum(path.stat().st_size for path in prepared.path.rglob("*") if path.is_file()))
    divided = SpecConfig(type="ipfs", params={"CID": str(root), "Partition": {"Type": "object"}})
    largest = max(shares)
    assert largest < sum(shares) == sum(sizes.values())
    expected = InputSize(total=largest, local=largest, disk=largest)
    assert await storage.part_size(divided, 3) == expected
    below = divided.replace(params={**divided.params, "CID": f"{root}/sub"})
    assert (await storage.part_size(below, 1)).total == sum(range(1, 9, 2)) * 1000
    block_store.delete(CID.of(RAW, Random("sub/1").randbytes(1000)))
    assert await storage.part_size(divided, 3) == InputSize.as_blocks(largest)


async def test_where_it_takes_long_to_find_the_largest_part_all_parts_count(content, tmp_path, monkeypatch):
    monkeypatch.setattr(provider, "ESTIMATE_TIMEOUT", 0)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(b"a" * 1000)
    (tmp_path / "data" / "b").write_bytes(b"b" * 3000)
    root = (await content.add(tmp_path / "data", pin_owner="test")).cid
    divided = SpecConfig(type="ipfs", params={"CID": str(root), "Partition": {"Type": "object"}})
    assert (await IpfsStorage(content).part_size(divided, 2)).total == 4000


async def test_without_the_blocks_of_its_folders_all_of_a_divided_folder_counts(
    content, block_store, tmp_path
):
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "sub" / "a").write_bytes(b"a" * 1000)
    (tmp_path / "data" / "b").write_bytes(b"b" * 3000)
    root = (await content.add(tmp_path / "data", pin_owner="test")).cid
    sub = (await content.add(tmp_path / "data" / "sub", pin_owner="test")).cid
    block_store.delete(sub)
    divided = SpecConfig(type="ipfs", params={"CID": str(root), "Partition": {"Type": "object"}})
    assert await IpfsStorage(content).part_size(divided, 2) == await IpfsStorage(content).size(ipfs(root))


async def test_a_pattern_is_matched_beside_the_event_loop(content, tmp_path, monkeypatch):
    threads = []

    def has(self, path):
        threads.append(threading.get_ident())
        return True

    monkeypatch.setattr(Chooser, "has", has)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"content")
    root = (await content.add(tmp_path / "data", pin_owner="test")).cid
    (tmp_path / "to").mkdir()
    await IpfsStorage(content).prepare(part(root, 0, 2), tmp_path / "to")
    assert threads
    assert threading.get_ident() not in threads


async def test_a_file_cannot_be_divided(content, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    root = (await content.add(tmp_path / "file", pin_owner="test")).cid
    (tmp_path / "to").mkdir()
    with pytest.raises(StorageError, match="only folders can be divided") as caught:
        await IpfsStorage(content).prepare(part(root, 0, 2), tmp_path / "to")
    assert caught.value.permanent


async def test_the_parts_of_a_folder_share_its_limit_of_bytes(content, tmp_path):
    (tmp_path / "data").mkdir()
    for number in range(10):
        (tmp_path / "data" / str(number)).write_bytes(b"x" * 100)
    root = (await content.add(tmp_path / "data", pin_owner="test")).cid
    (tmp_path / "to").mkdir()
    with pytest.raises(StorageError):
        await IpfsStorage(content).prepare(
            part(root, 0, 2, Type="substring", StartIndex=0, EndIndex=9), tmp_path / "to", max_bytes=500
        )


async def test_parameters_that_divide_nothing_are_faults(content):
    (fault,) = IpfsStorage(content).faults(part(NOWHERE, 0, 2, Type="hash"))
    assert fault.path == "Params.Partition.Type"
