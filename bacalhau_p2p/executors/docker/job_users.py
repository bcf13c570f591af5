"""Which user a job runs as: what the operator says, else the image's own, but never root by accident."""

from __future__ import annotations

import io
import os
import re
import tarfile
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.engine import DockerEngine
from bacalhau_p2p.executors.docker.ownership import NOBODY, JobUser

if TYPE_CHECKING:
    from docker import APIClient

T = TypeVar("T")

IMAGE = "image"
"""The setting for the user of the image."""
MAX_REMEMBERED = 1000
"""Images whose users are remembered."""
LEARNT_LASTS = 60.0
"""Seconds for which the name of an image is taken to mean the same one."""
MAX_USER_FILE = 1024 * 1024
"""Bytes of an image's `/etc/passwd` or `/etc/group`."""


class JobUsers:
    """Finds the users of jobs on one node."""

    def __init__(
        self, engine: DockerEngine, setting: str = IMAGE, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        """`setting` is `image`, `nobody`, `UID` or `UID:GID`. `now` in seconds. Raises SettingsError."""
        self._engine = engine
        self._fixed = None if setting.strip().lower() == IMAGE else JobUser.parse(setting)
        self._of_images: OrderedDict[str, JobUser] = OrderedDict()
        self._learnt: OrderedDict[str, tuple[float, JobUser]] = OrderedDict()
        self._now = now

    async def user_of(self, image: str) -> JobUser:
        """The user of a job with this image, which the engine has.

        A node that is not root runs jobs as its own user, because it could not hand their files back.
        Raises ExecutorError, permanent for an image whose user does not exist in it.
        """
        if self._fixed is not None:
            return self._fixed
        if os.geteuid() != 0:
            return JobUser.of_this_process()
        if image in self._learnt:
            learnt_at, user = self._learnt[image]
            if self._now() - learnt_at < LEARNT_LASTS:
                return user
        client = await self._engine.client()
        details = await self._engine.call(client.inspect_image, image)
        return await self._find(image, details)

    async def learn(self, image: str, details: Mapping[str, Any]) -> None:
        """Take what the engine has just said about an image, so that a run which follows need not ask.

        Raises as `user_of`.
        """
        if self._fixed is None and os.geteuid() == 0:
            _remember(self._learnt, image, (self._now(), await self._find(image, details)))

    async def _find(self, image: str, details: Mapping[str, Any]) -> JobUser:
        key = str(details["Id"])
        user = self._of_images.get(key)
        if user is None:
            text = str((details.get("Config") or {}).get("User") or "")
            client = await self._engine.client()
            user = await self._engine.call(_image_user, client, image, text)
            _remember(self._of_images, key, user)
        return user


def _remember(known: OrderedDict[str, T], key: str, value: T) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > MAX_REMEMBERED:
        known.popitem(last=False)


def _image_user(client: APIClient, image: str, text: str) -> JobUser:
    name, _, group = text.partition(":")
    if name in ("", "0", "root"):
        return JobUser(NOBODY, NOBODY)
    if not re.fullmatch("[0-9]{1,9}:[0-9]{1,9}", text):
        uid, gid = _look_up(client, image, name, group)
    else:
        uid, gid = int(name), int(group)
    return JobUser(uid, gid, of_image=True) if uid else JobUser(NOBODY, NOBODY)


def _look_up(client: APIClient, image: str, name: str, group: str) -> tuple[int, int]:
    """The numbers of a user and a group in the files of an image, as the engine finds them."""
    container = client.create_container(image, ["none"], network_disabled=True)["Id"]
    try:
        users = _rows(client, container, "/etc/passwd")
        groups = _rows(client, container, "/etc/group") if group else []
    finally:
        client.remove_container(container, force=True)
    user = next((row for row in users if name in (row[0], row[2])), None)
    uid = int(name) if name.isdigit() else _number(user, image, name)
    if not group:
        return uid, 0 if user is None else int(user[3])
    return uid, int(group) if group.isdigit() else _number(
        next((row for row in groups if row[0] == group), None), image, group
    )


def _number(row: Sequence[str] | None, image: str, name: str) -> int:
    if row is None:
        raise ExecutorError(f"image {image}: its user {name[:64]!r} does not exist in it", permanent=True)
    return int(row[2])


def _rows(client: APIClient, container: str, path: str) -> list[list[str]]:
    """The rows of such a file that are well-formed; none when there is no such file."""
    from docker.errors import NotFound

    archive = b""
    with suppress(NotFound):
        pieces, _ = client.get_archive(container, path)
        for piece in pieces:
            archive += piece
            if len(archive) > MAX_USER_FILE:
                break
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            member = tar.next()
            file = tar.extractfile(member) if member is not None and member.isfile() else None
            text = file.read().decode(errors="replace") if file is not None else ""
    except (tarfile.TarError, EOFError):
        return []
    rows = (line.split(":") for line in text.splitlines())
    return [row for row in rows if len(row) >= 4 and re.fullmatch("[0-9]{1,9}", row[2]) and _is_gid(row)]


def _is_gid(row: Sequence[str]) -> bool:
    return len(row) == 4 or bool(re.fullmatch("[0-9]{1,9}", row[3]))
