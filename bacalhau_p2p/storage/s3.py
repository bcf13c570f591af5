"""Inputs from S3: an object, or all below a prefix."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from bacalhau_p2p.errors import Fault, InvalidJob, StorageError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import S3Source
from bacalhau_p2p.model.validation import read_params
from bacalhau_p2p.outbound.s3 import S3Access, S3Fault, translated
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.tasks import all_or_first_fault
from bacalhau_p2p.storage.cache import Cached
from bacalhau_p2p.storage.fetching import Fetcher, UnchangedError
from bacalhau_p2p.storage.interface import InputSize, PreparedInput, StorageProvider

log = get_logger(__name__)

MAX_OBJECTS = 100_000
"""Objects of one input."""
_GULP = 1024 * 1024
_ATTEMPTS = 3
_AT_ONCE = 4
"""Objects of one input that are downloaded at the same time."""


@dataclass(frozen=True, slots=True)
class _Object:
    key: str
    path: str
    """Below the input's folder; ends in a slash for a folder."""
    size: int
    etag: str


class S3Storage(StorageProvider):
    """`{Type: s3, Params: {Bucket, Key, VersionID, ChecksumSHA256, Endpoint, Region, Anonymous}}`.

    A folder, read-only. A `Key` that ends in `/` or `*` stands for all objects that begin so, by the
    part of their keys behind the last slash of it; any other is one object, by its last name. What
    has not changed since it was last fetched (by ETags) is not fetched again.
    """

    def __init__(self, access: S3Access, fetcher: Fetcher) -> None:
        self._access = access
        self._fetcher = fetcher

    @property
    def source(self) -> str:
        return "s3"

    def faults(self, source: SpecConfig) -> list[Fault]:
        try:
            asked = read_params(S3Source, source)
        except InvalidJob as error:
            return list(error.faults)
        if not self._access.allows(asked.endpoint):
            return [Fault("Params.Endpoint", "is not allowed on this node", this_node_only=True)]
        return []

    async def has_locally(self, source: SpecConfig) -> bool:
        try:
            return await self._fetcher.has(_key(read_params(S3Source, source)))
        except InvalidJob:
            return False

    async def size(self, source: SpecConfig, *, hints: Sequence[PeerID] = ()) -> InputSize | None:
        """What listing the objects tells. Raises StorageError for what this node would not take."""
        try:
            asked = read_params(S3Source, source)
        except InvalidJob:
            return None
        if (here := await self._fetcher.size_here(_key(asked))) is not None:
            return here
        listing = _Listing(self._access.hurried, asked, self._fetcher.limits.bytes)
        try:
            objects = await self._access.hurried.run(listing.read, abandon=True)
        except S3Fault as fault:  # fetching it will tell
            log.debug("size_not_told", source=_shown(asked), reason=str(fault))
            return None
        return self._fetcher.size_there(sum(one.size for one in objects))

    async def prepare(
        self, source: SpecConfig, folder: Path, *, hints: Sequence[PeerID] = ()
    ) -> PreparedInput:
        """As `StorageProvider.prepare`; what does not exist, or has another checksum, is a permanent
        failure."""
        if faults := self.faults(source):
            raise StorageError(f"s3 input cannot be used: {faults[0]}", permanent=True)
        asked = read_params(S3Source, source)

        async def fetch(target: Path, known: Cached | None) -> Mapping[str, str] | None:
            if known is not None and asked.is_fixed:
                raise UnchangedError
            try:
                return await self._fetch(asked, target, known)
            except S3Fault as fault:
                raise StorageError(f"{_shown(asked)} cannot be had: {fault}", permanent=fault.gone) from None

        return await self._fetcher.prepare(_key(asked), folder, fetch)

    async def cleanup(self, prepared: PreparedInput) -> None:
        await self._fetcher.cleanup(prepared)

    async def _fetch(self, asked: S3Source, target: Path, known: Cached | None) -> Mapping[str, str]:
        limit = self._fetcher.limits.bytes
        listing = _Listing(self._access, asked, limit)
        objects = await self._access.run(listing.read)
        state = hashlib.sha256(repr(objects).encode()).hexdigest()
        if known is not None and known.note.get("state") == state:
            raise UnchangedError
        await self._fetcher.thread(_make_folders, target, objects)
        waiting = (one for one in objects if not one.path.endswith("/"))

        async def take() -> None:
            for one in waiting:
                await self._access.run(listing.download, one, target / one.path)

        await all_or_first_fault([take] * _AT_ONCE, S3Fault, StorageError, OSError)
        return {"state": state}


def _key(asked: S3Source) -> str:
    parts = (
        asked.endpoint.lower().rstrip("/"),
        asked.bucket,
        asked.key,
        asked.version_id,
        asked.checksum_sha256,
    )
    return " ".join(["s3", *map(repr, parts), repr(asked.anonymous)])


def _shown(asked: S3Source) -> str:
    return f"s3://{asked.bucket}/{asked.key}"


class _Listing:
    """What a source stands for. Blocks; for threads."""

    def __init__(self, access: S3Access, asked: S3Source, limit: int) -> None:
        self._access = access
        self._asked = asked
        self._limit = limit

    @property
    def _client(self) -> Any:
        asked = self._asked
        return self._access.client(asked.endpoint, asked.region, asked.bucket, anonymous=asked.anonymous)

    @property
    def _version(self) -> dict[str, str]:
        return {"VersionId": self._asked.version_id} if self._asked.version_id else {}

    def read(self) -> list[_Object]:
        """Raises S3Fault, StorageError."""
        found: list[_Object] = []
        total = 0
        for one in self._below() if self._asked.is_prefix else self._single():
            found.append(one)
            total += one.size
            if len(found) > MAX_OBJECTS:
                raise StorageError(
                    f"{_shown(self._asked)} has more than {MAX_OBJECTS} objects", permanent=True
                )
            if total > self._limit:
                problem = f"{_shown(self._asked)} is larger than the {self._limit} bytes that this node takes"
                raise StorageError(problem)
        if not found:
            raise S3Fault("there is no object whose key begins so", gone=True)
        return found

    def _single(self) -> Iterator[_Object]:
        key = self._asked.key
        head = self._client.head_object(Bucket=self._asked.bucket, Key=key, **self._version)
        yield _Object(key, self._path(key.rpartition("/")[2]), head["ContentLength"], head["ETag"])

    def _below(self) -> Iterator[_Object]:
        prefix = self._asked.key.removesuffix("*")
        base = prefix.rpartition("/")[0]
        cut = len(base) + 1 if base else 0
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._asked.bucket, Prefix=prefix):
            trio.from_thread.check_cancelled()
            for one in page.get("Contents", ()):
                if name := one["Key"][cut:]:
                    yield _Object(one["Key"], self._path(name), one["Size"], one["ETag"])

    def _path(self, name: str) -> str:
        """A key's part as a relative path. Raises StorageError for what cannot be one."""
        parts = name.removesuffix("/").split("/")
        if any(part in ("", ".", "..") or "\0" in part or len(part.encode()) > 255 for part in parts):
            raise StorageError(
                f"{_shown(self._asked)} has the key {name!r}, which is not a path", permanent=True
            )
        return name

    def download(self, one: _Object, path: Path) -> None:
        """Raises S3Fault, StorageError. Notices a cancellation between pieces."""
        for attempt in range(_ATTEMPTS):
            try:
                self._download(one, path)
            except S3Fault as fault:
                path.unlink(missing_ok=True)
                if fault.gone or attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def _download(self, one: _Object, path: Path) -> None:
        request = {"Bucket": self._asked.bucket, "Key": one.key, "IfMatch": one.etag, **self._version}
        answer = translated(lambda: self._client.get_object(**request))
        body, digest, size = answer["Body"], hashlib.sha256(), 0
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        with os.fdopen(file, "wb") as out, body:
            while data := translated(body.read, _GULP):
                trio.from_thread.check_cancelled()
                size += len(data)
                if size > one.size:
                    raise S3Fault("it has more bytes than the server said")
                digest.update(data)
                out.write(data)
        if size != one.size:
            raise S3Fault("the connection was lost")
        self._check(digest.digest())

    def _check(self, digest: bytes) -> None:
        wanted = self._asked.checksum_sha256
        if wanted and digest not in (_from_hex(wanted), _from_base64(wanted)):
            there = base64.b64encode(digest).decode()
            raise StorageError(f"{_shown(self._asked)} has the SHA-256 {there}, not {wanted}", permanent=True)


def _make_folders(target: Path, objects: Sequence[_Object]) -> None:
    """Raises StorageError where one key is another's folder."""
    files = {one.path for one in objects if not one.path.endswith("/")}
    target.mkdir(mode=0o755, exist_ok=True)
    for one in objects:
        parts = one.path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            if "/".join(parts[:depth]) in files:
                raise StorageError(f"the object {one.key!r} lies below another one", permanent=True)
        (target / "/".join(parts)).mkdir(parents=True, exist_ok=True)


def _from_hex(text: str) -> bytes:
    return bytes.fromhex(text) if len(text) == 64 else b""


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text) if len(text) == 44 else b""
