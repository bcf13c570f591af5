"""A Git repository, served by git's own program for web servers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bacalhau_p2p.model.job import SpecConfig
from tests.support.servers.web_server import Answer, WebServer

AUTHOR = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "PATH": os.environ["PATH"],
}


class Repository:
    """A repository, served by git's own program for web servers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repo"
        self.folder.mkdir()
        self.run("init", "-q", "-b", "main")
        self.server = WebServer(self.answer)

    def run(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=self.folder, env=AUTHOR, capture_output=True, text=True, check=True
        ).stdout.strip()

    def commit(self, **files: str | bytes) -> str:
        for name, content in files.items():
            path = self.folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.run("add", "-A")
        self.run("commit", "-q", "-m", "change")
        return self.run("rev-parse", "HEAD")

    def answer(self, request):
        environment = {
            **AUTHOR,
            "GIT_PROJECT_ROOT": str(self.folder.parent),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.target.partition("?")[2],
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(request.body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"], input=request.body, env=environment, capture_output=True, check=False
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        return Answer(status=int(headers.pop("Status", "200")[:3]), headers=headers, body=body)

    def source(self, ref: str = "", path: str = "/repo/.git") -> SpecConfig:
        params = {"URL": self.server.url + path, **({"Ref": ref} if ref else {})}
        return SpecConfig(type="git", params=params)


FIRST = {"a": b"one", "sub": None, "sub/b": b"b"}


SECOND = {"a": b"two", "sub": None, "sub/b": b"b"}
