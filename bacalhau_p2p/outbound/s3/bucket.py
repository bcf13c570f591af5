"""One S3 bucket. Every call blocks: it belongs in a worker thread of trio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from bacalhau_p2p.outbound.s3.errors import S3Error, translated

_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class S3Object:
    """An object as a listing describes it."""

    key: str
    size: int
    etag: str
    version_id: str = ""
    """That of `head` in a versioned bucket, else empty."""


class S3Bucket:
    """Requests about one bucket. All raise S3Error; long ones notice a cancellation between pieces."""

    def __init__(self, name: str, client: Callable[[], Any]) -> None:
        """`client` gives boto3's client, when it is first needed."""
        self.name = name
        self._client = client

    def head(self, key: str, version_id: str = "") -> S3Object:
        """The object of this key; the newest version unless one is named."""
        with translated():
            found = self._client().head_object(Bucket=self.name, Key=key, **_version(version_id))
        return S3Object(key, found["ContentLength"], found["ETag"], found.get("VersionId") or "")

    def objects(self, prefix: str) -> Iterator[S3Object]:
        """All objects whose keys start with `prefix`."""
        with translated():
            paginator = self._client().get_paginator("list_objects_v2")
            pages = iter(paginator.paginate(Bucket=self.name, Prefix=prefix))
        while True:
            trio.from_thread.check_cancelled()
            with translated():
                page = next(pages, None)
            if page is None:
                return
            for found in page.get("Contents", ()):
                yield S3Object(found["Key"], found["Size"], found["ETag"])

    def read(self, wanted: S3Object, version_id: str = "") -> Iterator[bytes]:
        """The object's content in pieces, exactly as long as its size, if its ETag is still the same."""
        with translated():
            answer = self._client().get_object(
                Bucket=self.name, Key=wanted.key, IfMatch=wanted.etag, **_version(version_id)
            )
        received = 0
        with closing(answer["Body"]) as body:
            while True:
                trio.from_thread.check_cancelled()
                with translated():
                    piece = body.read(_CHUNK)
                if not piece:
                    break
                received += len(piece)
                if received > wanted.size:
                    raise S3Error("the object is larger than its listed size")
                yield piece
        if received != wanted.size:
            raise S3Error("connection lost")

    def upload(self, path: Path, key: str, *, content_type: str = "") -> None:
        """Upload a file with a checksum that the server compares. Raises OSError too."""
        with translated():
            from boto3.s3.transfer import TransferConfig

            self._client().upload_file(
                str(path),
                self.name,
                key,
                ExtraArgs={"ContentType": content_type} if content_type else {},
                Config=TransferConfig(use_threads=False),
                Callback=lambda sent: trio.from_thread.check_cancelled(),
            )


def _version(version_id: str) -> dict[str, str]:
    return {"VersionId": version_id} if version_id else {}
