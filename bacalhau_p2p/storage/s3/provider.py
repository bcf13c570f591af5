"""Inputs from S3: an object, or all objects below a prefix."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from bacalhau_p2p.errors import Fault, InvalidJob, StorageError
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import S3Source
from bacalhau_p2p.model.partition_keys import TooManyPaths
from bacalhau_p2p.model.partitions import Partition, part_of
from bacalhau_p2p.model.validation import read_params
from bacalhau_p2p.outbound.s3.access import S3Access
from bacalhau_p2p.outbound.s3.bucket import S3Bucket
from bacalhau_p2p.outbound.s3.errors import S3Error
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.tasks import all_or_first_fault
from bacalhau_p2p.storage.fetching.fetcher import Fetcher, InputUnchanged
from bacalhau_p2p.storage.fetching.hashed_file import HashedFile
from bacalhau_p2p.storage.fetching.input_cache import CachedInput
from bacalhau_p2p.storage.fetching.provider import FetchingProvider
from bacalhau_p2p.storage.interface import InputSize
from bacalhau_p2p.storage.s3.listing import InputObject, largest_part, list_objects, make_folders, s3_url

log = get_logger(__name__)

_ATTEMPTS = 3
_CONCURRENT_DOWNLOADS = 4
"""Objects of one input."""


class S3Storage(FetchingProvider[S3Source]):
    """`{Type: s3, Params: {Bucket, Key, VersionID, ChecksumSHA256, Endpoint, Region, Anonymous, Partition}}`.

    A folder, read-only. A `Key` that is empty or ends in `/` or `*` is a prefix and stands for all objects
    with it. Each is named by its key without the part up to the prefix's last slash.
    Any other `Key` is one object, named by the last part of its key. Objects whose ETags have not
    changed since the last download are not downloaded again.
    """

    def __init__(self, access: S3Access, fetcher: Fetcher) -> None:
        super().__init__("s3", fetcher)
        self._access = access

    def _params(self, source: SpecConfig) -> S3Source:
        return read_params(S3Source, source)

    def _setting_faults(self, params: S3Source) -> list[Fault]:
        return self._access.endpoint_faults(params.endpoint)

    def _key(self, params: S3Source) -> str:
        parts = (
            params.endpoint.lower().rstrip("/"),
            params.bucket,
            params.key,
            params.version_id,
            params.checksum_sha256,
        )
        part = [repr(params.partition)] if params.partition.divides else []
        return " ".join(["s3", *map(repr, parts), repr(params.anonymous), *part])

    async def _remote_size(self, params: S3Source) -> int | None:
        """What the listing says; None when it fails, because fetching reports the failure."""
        access = self._access.for_probes
        too_large, limit = self._fetcher.too_large(s3_url(params)), self._fetcher.limits.bytes
        bucket = _bucket(access, params)
        try:
            objects = await access.threads.run_abandonable(list_objects, bucket, params, limit, too_large)
        except S3Error as error:
            log.debug("size_unknown", source=s3_url(params), reason=str(error))
            return None
        return sum(each.size for each in objects)

    async def part_size(
        self, source: SpecConfig, parts: int, *, hints: Sequence[PeerID] = ()
    ) -> InputSize | None:
        """What the listing says, of all parts if it is long; None when it fails, because fetching reports the
        failure."""
        try:
            params = self._params(source.replace(params=part_of(source.params, Partition(0, parts))))
        except InvalidJob:
            return None
        access = self._access.for_probes
        bucket = _bucket(access, params)
        try:
            return self._fetcher.size_to_fetch(
                await access.threads.run_abandonable(largest_part, bucket, params)
            )
        except TooManyPaths:
            return await self.size(source, hints=hints)
        except S3Error as error:
            log.debug("size_unknown", source=s3_url(params), reason=str(error))
            return None

    async def _fetch(
        self, params: S3Source, target: Path, cached: CachedInput | None, fetcher: Fetcher
    ) -> Mapping[str, str] | None:
        if cached is not None and params.is_fixed:
            raise InputUnchanged
        try:
            return await self._download(params, target, cached, fetcher)
        except S3Error as error:
            raise StorageError(
                f"download of {s3_url(params)} failed: {error}", permanent=error.permanent
            ) from None

    async def _download(
        self, params: S3Source, target: Path, cached: CachedInput | None, fetcher: Fetcher
    ) -> Mapping[str, str]:
        bucket, threads = _bucket(self._access, params), self._access.threads
        limit, too_large = fetcher.limits.bytes, fetcher.too_large(s3_url(params))
        objects = await threads.run(list_objects, bucket, params, limit, too_large)
        state = hashlib.sha256(repr([each.identity for each in objects]).encode()).hexdigest()
        if cached is not None and cached.fingerprint.get("state") == state:
            raise InputUnchanged
        await fetcher.threads.run(make_folders, target, objects)
        waiting = (each for each in objects if not each.is_folder)

        async def download_waiting() -> None:
            for each in waiting:
                await threads.run(_download_one, bucket, params, each, target / each.path)

        await all_or_first_fault([download_waiting] * _CONCURRENT_DOWNLOADS, S3Error, StorageError, OSError)
        return {"state": state}


def _bucket(access: S3Access, params: S3Source) -> S3Bucket:
    return access.bucket(
        params.bucket, endpoint=params.endpoint, region=params.region, anonymous=params.anonymous
    )


def _download_one(bucket: S3Bucket, params: S3Source, wanted: InputObject, path: Path) -> None:
    """Download to a new file, with retries. Blocks. Raises S3Error, StorageError, OSError."""
    for attempt in range(_ATTEMPTS):
        try:
            with HashedFile(path) as file:
                for piece in bucket.read(wanted.object, params.version_id):
                    file.write(piece)
            _check_hash(params, file.sha256)
            return
        except S3Error as error:
            path.unlink(missing_ok=True)
            if error.permanent or attempt == _ATTEMPTS - 1:
                raise


def _check_hash(params: S3Source, sha256: bytes) -> None:
    wanted = params.checksum_sha256
    if wanted and sha256 != _decoded(wanted):
        found = base64.b64encode(sha256).decode()
        raise StorageError(
            f"download of {s3_url(params)} failed: wrong content: its SHA-256 is {found}, not {wanted}",
            permanent=True,
        )


def _decoded(checksum: str) -> bytes:
    """A checksum in hex, or in base64 as S3 has it."""
    return bytes.fromhex(checksum) if len(checksum) == 64 else base64.b64decode(checksum)
