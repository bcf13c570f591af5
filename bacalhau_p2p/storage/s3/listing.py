"""Which objects an S3 input consists of, and where each is placed. Blocks: for worker threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bacalhau_p2p.errors import StorageError
from bacalhau_p2p.model.params import S3Source
from bacalhau_p2p.model.partition_keys import ESTIMATE_TIMEOUT, Chooser, InvalidPattern, TooManyPaths
from bacalhau_p2p.outbound.s3.bucket import S3Bucket, S3Object
from bacalhau_p2p.outbound.s3.errors import S3Error
from bacalhau_p2p.storage.trees import MAX_DEPTH

MAX_OBJECTS = 100_000
"""Objects of one input."""


@dataclass(frozen=True, slots=True)
class InputObject:
    """An object and its path below the input's folder; a folder's path ends in a slash."""

    object: S3Object
    path: str

    @property
    def is_folder(self) -> bool:
        return self.path.endswith("/")

    @property
    def size(self) -> int:
        return self.object.size

    @property
    def identity(self) -> tuple[str, str, int, str]:
        """What changes when the object does."""
        return (self.object.key, self.path, self.size, self.object.etag)


def s3_url(params: S3Source) -> str:
    return f"s3://{params.bucket}/{params.key}"


def list_objects(
    bucket: S3Bucket, params: S3Source, limit: int, too_large: StorageError
) -> list[InputObject]:
    """The objects of an input. Raises S3Error; StorageError when there are too many, and `too_large`
    above `limit` bytes."""
    found: list[InputObject] = []
    total = listed = 0
    chooser = Chooser(params.partition)
    for each in _below(bucket, params) if params.is_prefix else _single(bucket, params):
        listed += 1
        if listed > MAX_OBJECTS:
            raise _too_many(params)
        try:
            wanted = _is_in_part(params, chooser, each)
        except TooManyPaths as error:
            raise _undividable(params, error) from None
        if not wanted:
            continue
        found.append(each)
        total += each.size
        if total > limit:
            raise too_large
    if not listed:
        raise S3Error("no object has a key with this prefix", permanent=True)
    return found


def largest_part(bucket: S3Bucket, params: S3Source) -> int:
    """Bytes of the largest part of a divided input. Raises S3Error, StorageError, and TooManyPaths where only
    the size of all parts can be found out soon."""
    sizes = Counter[int]()
    chooser = Chooser(params.partition, timeout=ESTIMATE_TIMEOUT)
    objects = _below(bucket, params) if params.is_prefix else _single(bucket, params)
    for number, each in enumerate(objects):
        if number >= MAX_OBJECTS:
            raise _too_many(params)
        if not each.is_folder:
            sizes[_part_of(params, chooser, each)] += each.size
    return max(sizes.values(), default=0)


def _is_in_part(params: S3Source, chooser: Chooser, found: InputObject) -> bool:
    """Whether an object is in the part of a divided input that is wanted; folders are in none."""
    if not params.partition.divides:
        return True
    return not found.is_folder and _part_of(params, chooser, found) == params.partition.index


def _part_of(params: S3Source, chooser: Chooser, found: InputObject) -> int:
    """Raises StorageError, TooManyPaths."""
    below = found.object.key.removeprefix(params.key.strip().removesuffix("*")).removeprefix("/")
    try:
        return chooser.index_of(below, whole=found.object.key)
    except TooManyPaths:
        raise
    except InvalidPattern as error:
        raise _undividable(params, error) from None


def _undividable(params: S3Source, error: InvalidPattern) -> StorageError:
    return StorageError(f"{s3_url(params)} cannot be divided: {error}", permanent=True)


def _too_many(params: S3Source) -> StorageError:
    return StorageError(f"{s3_url(params)} has more than {MAX_OBJECTS} objects", permanent=True)


def _single(bucket: S3Bucket, params: S3Source) -> Iterator[InputObject]:
    found = bucket.head(params.key, params.version_id)
    yield InputObject(found, _checked(params, params.key.rpartition("/")[2]))


def _below(bucket: S3Bucket, params: S3Source) -> Iterator[InputObject]:
    prefix = params.key.removesuffix("*")
    base = prefix.rpartition("/")[0]
    cut = len(base) + 1 if base else 0
    for found in bucket.objects(prefix):
        if name := found.key[cut:]:
            yield InputObject(found, _checked(params, name))


def _checked(params: S3Source, name: str) -> str:
    """A part of a key, if it is a relative path. Raises StorageError, permanent."""
    parts = name.removesuffix("/").split("/")
    if len(parts) > MAX_DEPTH:
        raise StorageError(f"{s3_url(params)} has a key of more than {MAX_DEPTH} names", permanent=True)
    if any(part in ("", ".", "..") or "\0" in part or len(part.encode()) > 255 for part in parts):
        raise StorageError(
            f"{s3_url(params)} has the key {name!r}, which is not a valid path", permanent=True
        )
    return name


def make_folders(target: Path, objects: Sequence[InputObject]) -> None:
    """Make all folders. Raises StorageError, permanent, when a file has the path of a folder; OSError."""
    files = {each.path for each in objects if not each.is_folder}
    target.mkdir(mode=0o755, exist_ok=True)
    for each in objects:
        parts = each.path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = "/".join(parts[:depth])
            if parent in files:
                raise StorageError(
                    f"the object {each.object.key!r} is below another object, {parent!r}", permanent=True
                )
        (target / "/".join(parts)).mkdir(parents=True, exist_ok=True)
