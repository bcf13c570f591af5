"""Publishing to S3 and what speaks like it."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import trio

from bacalhau_p2p.errors import ContentError, Fault, InvalidJob, PublisherError
from bacalhau_p2p.ipfs.content import Content
from bacalhau_p2p.ipfs.format.car import CAR_MEDIA_TYPE
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import ExecutionID, JobID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.params import S3Publisher as S3Target
from bacalhau_p2p.model.validation import read_params
from bacalhau_p2p.outbound.s3 import S3Access, S3Fault
from bacalhau_p2p.publishers.keeping import PublishLimits, pin_result

_SUFFIXES = {"gzip": ".tar.gz", "car": ".car"}
_TYPES = {"gzip": "application/gzip", "car": CAR_MEDIA_TYPE}


class S3Publisher:
    """`{Type: s3, Params: {Bucket, Key, Endpoint, Region, Encoding}}`.

    `Key` is a prefix; each execution gets one of its own below it: `<Key>/<job id>/<execution id>/`, unless
    `Key` has `{executionID}` in it. With the encoding `gzip` or `car` the result is one object with that
    name and `.tar.gz` or `.car`. The objects are listed afterwards, and must be there in their sizes.
    """

    def __init__(
        self,
        content: Content,
        access: S3Access,
        *,
        folder: Path,
        addresses: Callable[[], Sequence[str]] = tuple,
        limits: PublishLimits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folder`, made when it is not there, takes results while they are uploaded; `addresses` gives this
        node's multiaddrs now: the location's `Providers`."""
        self._content = content
        self._access = access
        self._folder = folder
        self._addresses = addresses
        self._limits = limits or PublishLimits()
        self._clock = clock
        self._mutex = threading.Lock()
        self._swept = False

    @property
    def type(self) -> str:
        return "s3"

    def faults(self, publisher: SpecConfig) -> list[Fault]:
        try:
            target = read_params(S3Target, publisher)
        except InvalidJob as error:
            return list(error.faults)
        if not self._access.allows(target.endpoint):
            return [Fault("Params.Endpoint", "is not allowed on this node", this_node_only=True)]
        if not self._access.signs(target.bucket):
            return [Fault("Params.Bucket", "is not allowed on this node", this_node_only=True)]
        return []

    async def unavailable(self) -> str | None:
        if not self._access.installed():
            return "boto3 is not installed"
        return None if self._access.writes else "the settings of this node name no bucket"

    async def publish(
        self, publisher: SpecConfig, job_id: JobID, execution_id: ExecutionID, cid: str
    ) -> PublishedResult:
        """As `Publisher.publish`. Nothing is left in the node's folder; of an upload that failed or was
        cancelled, objects may be left in the bucket."""
        if faults := self.faults(publisher):
            raise PublisherError(f"result {cid} is not published: {faults[0]}")
        target = read_params(S3Target, publisher)
        await pin_result(self._content, cid, execution_id, self._clock() + self._limits.keep)
        key = self._key(target, job_id, execution_id)
        place = await trio.to_thread.run_sync(self._make_place)
        try:
            with trio.fail_after(self._limits.total):
                files = await self._write(CID.parse(cid), target, key, place)
                told = await self._access.run(self._upload, target, key, files)
        except trio.TooSlowError:
            raise PublisherError(f"s3 had not taken result {cid} within {self._limits.total:g} s") from None
        except S3Fault as fault:
            raise PublisherError(
                f"result {cid} is not published to s3://{target.bucket}/{key}: {fault}"
            ) from None
        except (ContentError, OSError) as error:
            raise PublisherError(f"result {cid} is not published: {error}") from error
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(lambda: shutil.rmtree(place, ignore_errors=True))
        params = {"CID": cid, "Providers": list(self._addresses()), **_named(target), "Key": key, **told}
        return PublishedResult(cid=cid, location=SpecConfig(type="s3", params=params))

    def _key(self, target: S3Target, job_id: JobID, execution_id: ExecutionID) -> str:
        now = time.gmtime(self._clock())
        key = (
            target.key
            if "{executionID}" in target.key
            else f"{target.key.rstrip('/')}/{{jobID}}/{{executionID}}"
        )
        for name, value in {
            "jobID": job_id,
            "executionID": execution_id,
            "date": time.strftime("%Y%m%d", now),
            "time": time.strftime("%H%M%S", now),
        }.items():
            key = key.replace(f"{{{name}}}", value)
        suffix = _SUFFIXES.get(target.encoding)
        if suffix is None:
            return key.strip("/") + "/"
        return key.strip("/").removesuffix(suffix) + suffix

    def _make_place(self) -> Path:
        with self._mutex:
            if not self._swept:  # what a process before this one left when it was killed
                shutil.rmtree(self._folder, ignore_errors=True)
                self._swept = True
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Path(tempfile.mkdtemp(dir=self._folder))

    async def _write(self, cid: CID, target: S3Target, key: str, place: Path) -> Mapping[str, Path]:
        """What is to be uploaded, by key."""
        if target.encoding in ("", "plain"):
            await self._content.export(cid, place / "result")
            return await trio.to_thread.run_sync(_below, place / "result", key)
        path = place / "result"
        if target.encoding == "car":
            await _save(self._content.car(cid), path, compress=False)
        else:
            await _save(self._content.tar(cid, name="."), path, compress=True)
        return {key: path}

    def _upload(self, target: S3Target, key: str, files: Mapping[str, Path]) -> Mapping[str, str]:
        """Blocks. What the location should tell besides. Raises S3Fault, OSError."""
        from boto3.s3.transfer import TransferConfig

        client = self._access.client(target.endpoint, target.region, target.bucket)
        config = TransferConfig(use_threads=False)
        extra = {"ContentType": _TYPES[target.encoding]} if target.encoding in _TYPES else {}
        for name, path in files.items():
            trio.from_thread.check_cancelled()
            client.upload_file(
                str(path),
                target.bucket,
                name,
                ExtraArgs=extra,
                Config=config,
                Callback=lambda sent: trio.from_thread.check_cancelled(),
            )
        there: dict[str, int] = {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=target.bucket, Prefix=key):
            there.update((one["Key"], one["Size"]) for one in page.get("Contents", ()))
        for name, path in files.items():
            if there.get(name) != path.stat().st_size:
                raise S3Fault(f"the object {name!r} is not there whole after its upload")
        if key not in files:
            return {}
        head = client.head_object(Bucket=target.bucket, Key=key)
        return {"VersionID": head["VersionId"]} if head.get("VersionId") else {}


def _named(target: S3Target) -> dict[str, Any]:
    return {
        name: value
        for name, value in target.to_wire().items()
        if value and name in ("Bucket", "Endpoint", "Region", "Encoding")
    }


def _below(folder: Path, key: str) -> dict[str, Path]:
    """Every file below a folder by its key; an empty folder is a key that ends in a slash."""
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
