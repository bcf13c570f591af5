"""Pulls images that the engine does not have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.engine import DockerEngine

if TYPE_CHECKING:
    from docker import APIClient

_NO_SUCH_IMAGE = re.compile(
    r"not found|manifest unknown|name unknown|does not exist|access denied|unauthorized|no matching manifest"
)


async def ensure_image(engine: DockerEngine, image: str) -> None:
    """Pull the image unless the engine has it.

    Raises ExecutorError, permanent when the registry has no such image.
    """
    client = await engine.client()
    if not await engine.call(_has_image, client, image):
        await engine.long_call(_pull, client, image)


def _has_image(client: APIClient, image: str) -> bool:
    from docker.errors import ImageNotFound

    try:
        client.inspect_image(image)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return False
    return True


def _pull(client: APIClient, image: str) -> None:
    from docker.errors import APIError
    from docker.utils import parse_repository_tag

    repository, tag = parse_repository_tag(image)
    try:
        # Without a tag the engine would pull all tags.
        for line in client.pull(repository, tag=tag or "latest", stream=True, decode=True):
            trio.from_thread.check_cancelled()
            if "error" in line:
                raise _pull_failed(image, str(line["error"]))
    except APIError as error:
        raise _pull_failed(image, str(error.explanation or error)) from error


def _pull_failed(image: str, message: str) -> ExecutorError:
    message = message.strip()
    if "invalid reference" in message or "invalid tag" in message:
        return ExecutorError(f"image {image}: {message}", permanent=True)
    if _NO_SUCH_IMAGE.search(message) and "lookup" not in message:
        return ExecutorError(f"image {image}: not found ({message})", permanent=True)
    return ExecutorError(f"image {image}: registry unreachable ({message})")
