"""Publishing to S3 and compatible servers."""

from __future__ import annotations

import gzip
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import trio

from bacalhau_p2p.errors import ContentError, Fault, InvalidJob, PublisherError
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import S3Publisher as S3Target
from bacalhau_p2p.model.validation import read_params
from bacalhau_p2p.outbound.s3.access import S3Access
from bacalhau_p2p.outbound.s3.bucket import S3Bucket
from bacalhau_p2p.outbound.s3.errors import S3Error
from bacalhau_p2p.publishers.retention import PUBLISH_TIMEOUT, RETENTION, pin_result
from bacalhau_p2p.runtime.removal import discard_tree

_SUFFIXES = {"gzip": ".tar.gz", "car": ".car"}
_MEDIA_TYPES = {"gzip": "application/gzip", "car": CAR_MEDIA_TYPE}


class S3Publisher:
    """`{Type: s3, Params: {Bucket, Key, Endpoint, Region, Encoding}}`.

    `Key` is a prefix; each execution gets its own below it: `<Key>/<job id>/<execution id>/`, unless
    `Key` contains `{executionID}`. With the encoding `gzip` or `car` the result is one object with that
    name and `.tar.gz` or `.car`. After the upload, all objects must be listed with their sizes.
    """

    def __init__(
        self,
        content: Content,
        access: S3Access,
        *,
        folder: Path,
        addresses: Callable[[], Sequence[str]] = tuple,
        timeout: float = PUBLISH_TIMEOUT,
        keep: float = RETENTION,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folder` holds results during their upload; it is made when needed. `addresses` gives this
        node's multiaddrs now: the location's `Providers`. `timeout` of an upload, and `keep`, for which
        the node keeps the result too, in seconds; `clock` in UNIX seconds."""
        self._content = content
        self._access = access
        self._folder = folder
        self._addresses = addresses
        self._timeout = timeout
        self._keep = keep
        self._clock = clock
        self._mutex = threading.Lock()
        self._emptied = False

    @property
    def type(self) -> str:
        return "s3"

    def faults(self, publisher: SpecConfig) -> list[Fault]:
        try:
            target = read_params(S3Target, publisher)
        except InvalidJob as error:
            return list(error.faults)
        if faults := self._access.endpoint_faults(target.endpoint):
            return faults
        if not self._access.uses_credentials(target.bucket):
            return [Fault("Params.Bucket", "is not allowed on this node", this_node_only=True)]
        return []

    async def unavailable(self) -> str | None:
        if not self._access.installed():
            return "boto3 is not installed"
        return None if self._access.can_write else "no bucket in this node's settings"

    async def publish(
        self, publisher: SpecConfig, job_id: JobID, execution_id: ExecutionID, cid: str
    ) -> PublishedResult:
        """As `Publisher.publish`. Nothing is left in the node's folder; an upload that failed or was
        cancelled may leave objects in the bucket."""
        if faults := self.faults(publisher):
            raise PublisherError(f"publishing result {cid} failed: {faults[0]}")
        target = read_params(S3Target, publisher)
        await pin_result(self._content, cid, execution_id, self._clock() + self._keep)
        key = self._key(target, job_id, execution_id)
        bucket = self._access.bucket(target.bucket, endpoint=target.endpoint, region=target.region)
        place = await trio.to_thread.run_sync(self._make_place)
        try:
            with trio.fail_after(self._timeout):
                files = await self._write(CID.parse(cid), target, key, place)
                details = await self._access.threads.run(_upload, bucket, target.encoding, key, files)
        except trio.TooSlowError:
            raise PublisherError(
                f"publishing result {cid} failed: upload to s3 took longer than {self._timeout:g} s"
            ) from None
        except S3Error as error:
            raise PublisherError(
                f"publishing result {cid} to s3://{target.bucket}/{key} failed: {error}"
            ) from None
        except (ContentError, OSError) as error:
            raise PublisherError(f"publishing result {cid} failed: {error}") from error
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(discard_tree, place)
        params = {
            "CID": cid,
            "Providers": list(self._addresses()),
            **_location_params(target),
            "Key": key,
            **details,
        }
        return PublishedResult(cid=cid, location=SpecConfig(type="s3", params=params))

    def _key(self, target: S3Target, job_id: JobID, execution_id: ExecutionID) -> str:
        """The key of the one object, or the prefix of all, which ends in a slash."""
        key = target.key
        if "{executionID}" not in key:
            key = f"{key.rstrip('/')}/{{jobID}}/{{executionID}}"
        now = time.gmtime(self._clock())
        values = {
            "jobID": job_id,
            "executionID": execution_id,
            "date": time.strftime("%Y%m%d", now),
            "time": time.strftime("%H%M%S", now),
        }
        for name, value in values.items():
            key = key.replace(f"{{{name}}}", value)
        suffix = _SUFFIXES.get(target.encoding)
        if suffix is None:
            return key.strip("/") + "/"
        return key.strip("/").removesuffix(suffix) + suffix

    def _make_place(self) -> Path:
        """A new folder. The first call removes what an earlier process left when it was killed."""
        with self._mutex:
            if not self._emptied:
                discard_tree(self._folder)
                self._emptied = True
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Path(tempfile.mkdtemp(dir=self._folder))

    async def _write(self, cid: CID, target: S3Target, key: str, place: Path) -> Mapping[str, Path]:
        """Write the files to be uploaded; their paths by key."""
        path = place / "result"
        if target.encoding == "gzip":
            await _save(self._content.reader.tar(cid, name="."), path, compress=True)
        elif target.encoding == "car":
            await _save(self._content.reader.car(cid), path, compress=False)
        else:
            await self._content.export(cid, path)
            return await trio.to_thread.run_sync(_files_below, path, key)
        return {key: path}


def _upload(bucket: S3Bucket, encoding: str, key: str, files: Mapping[str, Path]) -> Mapping[str, str]:
    """Upload and list the files; further parameters of the location. Blocks. Raises S3Error, OSError."""
    for name, path in files.items():
        trio.from_thread.check_cancelled()
        bucket.upload(path, name, content_type=_MEDIA_TYPES.get(encoding, ""))
    listed = {each.key: each.size for each in bucket.objects(prefix=key)}
    for name, path in files.items():
        if listed.get(name) != path.stat().st_size:
            raise S3Error(f"the object {name!r} is missing or incomplete after its upload")
    version_id = bucket.head(key).version_id if key in files else ""
    return {"VersionID": version_id} if version_id else {}


def _location_params(target: S3Target) -> dict[str, Any]:
    names = ("Bucket", "Endpoint", "Region", "Encoding")
    return {name: value for name, value in target.to_wire().items() if value and name in names}


def _files_below(folder: Path, key: str) -> dict[str, Path]:
    """Every file below a folder by its key; an empty folder is an empty object whose key ends in a slash."""
    found: dict[str, Path] = {}
    empty = folder.parent / "empty"
    empty.touch()
    for path in sorted(folder.rglob("*")):
        name = key + path.relative_to(folder).as_posix()
        if path.is_file():
            found[name] = path
        elif not any(path.iterdir()):
            found[f"{name}/"] = empty
    return found or {key: empty}


async def _save(pieces: AsyncIterator[bytes], path: Path, *, compress: bool) -> None:
    """Write a stream to a new file, gzipped if asked; equal streams give equal files."""
    with path.open("xb") as file:
        out = gzip.GzipFile("", "wb", 6, file, mtime=0) if compress else file
        async with aclosing(cast(Any, pieces)) as chunks:
            async for chunk in chunks:
                await trio.to_thread.run_sync(out.write, chunk)
        if compress:
            await trio.to_thread.run_sync(out.close)
