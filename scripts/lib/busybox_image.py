"""Puts an image `busybox:latest` into the Docker engine that the environment names, unless it has one.

Made from Debian's busybox-static where that is installed, so that no registry is needed; else pulled.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import docker
from docker.errors import DockerException, ImageNotFound

IMAGE = "busybox:latest"
USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
GROUPS = "root:x:0:\nnogroup:x:65534:\n"


def main() -> int:
    try:
        client = docker.from_env(timeout=60)
        try:
            client.images.get(IMAGE)
        except ImageNotFound:
            bring(client)
    except DockerException as error:
        print(f"No image {IMAGE}: {error}", file=sys.stderr)
        return 1
    return 0


def bring(client: docker.DockerClient) -> None:
    busybox = static_busybox()
    if busybox is None:
        client.images.pull(IMAGE)
        return
    client.api.import_image_from_data(
        image_tree(busybox),
        repository="busybox",
        tag="latest",
        changes=['CMD ["sh"]', "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    )


def static_busybox() -> Path | None:
    """The machine's busybox, if it runs without shared libraries."""
    found = shutil.which("busybox", path="/usr/bin:/bin")
    if found is None:
        return None
    binary = Path(found).resolve()
    # A dynamic binary names its loader (PT_INTERP) near its beginning.
    return None if b"/ld-" in binary.read_bytes()[:4096] else binary


def image_tree(busybox: Path) -> bytes:
    """A tar of a root file system: busybox, and a link to it for each of its applets."""
    listed = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tree:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tree.addfile(entry)
        add_file(tree, "bin/busybox", busybox.read_bytes(), 0o755)
        add_file(tree, "etc/passwd", USERS.encode(), 0o644)
        add_file(tree, "etc/group", GROUPS.encode(), 0o644)
        for applet in listed.stdout.split():
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tree.addfile(link)
    return buffer.getvalue()


def add_file(tree: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tree.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    sys.exit(main())
