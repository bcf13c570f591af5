"""A registry of images on loopback, which an engine accepts without TLS."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


CONFIG = "application/vnd.docker.container.image.v1+json"


LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Registry(ThreadingHTTPServer):
    """Serves what is in `files`, by path. Requests for a path in `stalled` get no answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), RegistryHandler)
        self.files: dict[str, tuple[str, bytes]] = {"/v2/": ("application/json", b"{}")}
        self.stalled: set[str] = set()
        self.forbidden: bytes | None = None
        """The body of a 403 that answers every request."""
        self.asked: list[str] = []
        self.reached = threading.Event()
        """Set when a stalled path was requested."""
        self.closing = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def add_image(self, name: str) -> str:
        """An image of one file, tagged `latest`; its full name."""
        layer = layer_with("greeting", name.encode())  # no engine has it already, from another test
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["/greeting"]},
                "rootfs": {"type": "layers", "diff_ids": [digest(gzip.decompress(layer))]},
            }
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": CONFIG, "size": len(config), "digest": digest(config)},
                "layers": [{"mediaType": LAYER, "size": len(layer), "digest": digest(layer)}],
            }
        ).encode()
        for reference in ("latest", digest(manifest)):
            self.files[f"/v2/{name}/manifests/{reference}"] = (MANIFEST, manifest)
        for blob in (config, layer):
            self.files[f"/v2/{name}/blobs/{digest(blob)}"] = ("application/octet-stream", blob)
        return f"{self.address}/{name}"


class RegistryHandler(BaseHTTPRequestHandler):
    server: Registry
    protocol_version = "HTTP/1.1"
    missing: ClassVar[bytes] = json.dumps(
        {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
    ).encode()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path in self.server.stalled:
            self.server.reached.set()
            self.server.closing.wait()
        kind, data = self.server.files.get(self.path, ("", b""))
        if self.server.forbidden is not None:
            kind, data = "text/plain", self.server.forbidden
            self.send_response(HTTPStatus.FORBIDDEN)
        elif kind:
            self.send_response(HTTPStatus.OK)
            self.send_header("Docker-Content-Digest", digest(data))
        else:
            kind, data = "application/json", self.missing
            self.send_response(HTTPStatus.NOT_FOUND)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base's
        pass


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer_with(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tree:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tree.addfile(entry, io.BytesIO(data))
    return gzip.compress(buffer.getvalue())
