"""Remembers which images this node has pulled, and when a job last used each."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_REMEMBERED = 1000
"""Images; the engine holds fewer. Beyond it the least recently used are forgotten, and stay."""
USE_PRECISION = 60.0
"""Seconds for which a further use of an image is not recorded."""


@dataclass(frozen=True, slots=True)
class PulledImage:
    """An image that this node has pulled under a name."""

    name: str
    image_id: str
    """What the name stood for then; another id means that somebody else has pulled it since."""
    last_used: float
    """UNIX seconds."""


class PulledImages:
    """A small file, written whole at each change.

    Every method may block; all may be called from any thread.
    """

    def __init__(self, path: Path | None, now: Callable[[], float]) -> None:
        """Without `path` it is kept in memory. `now` in UNIX seconds."""
        self._path = path
        self._now = now
        self._mutex = threading.Lock()
        self._images: dict[str, PulledImage] | None = None

    def add(self, name: str, image_id: str) -> None:
        """This node has pulled the image."""
        with self._mutex:
            self._put(PulledImage(name, image_id, self._now()))

    def use(self, name: str) -> None:
        """A job uses the image, if it is a pulled one."""
        with self._mutex:
            known = self._loaded().get(name)
            if known is not None and self._now() - known.last_used > USE_PRECISION:
                self._put(PulledImage(name, known.image_id, self._now()))

    def forget(self, name: str) -> None:
        """The image is gone, or belongs to somebody else now."""
        with self._mutex:
            if self._loaded().pop(name, None) is not None:
                self._store()

    def least_recently_used(self) -> list[PulledImage]:
        """All of them, the one that was used longest ago first."""
        with self._mutex:
            return sorted(self._loaded().values(), key=lambda image: image.last_used)

    def _put(self, image: PulledImage) -> None:
        images = self._loaded()
        images[image.name] = image
        while len(images) > MAX_REMEMBERED:
            del images[min(images.values(), key=lambda each: each.last_used).name]
        self._store()

    def _loaded(self) -> dict[str, PulledImage]:
        if self._images is None:
            self._images = {}
            with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
                for item in json.loads(self._path.read_text()) if self._path is not None else ():
                    image = _image(item)
                    self._images[image.name] = image
        return self._images

    def _store(self) -> None:
        """Replace the file; one that cannot be written is only forgotten at the next start."""
        if self._path is None:
            return
        items = [
            {"name": image.name, "id": image.image_id, "used": image.last_used}
            for image in self._loaded().values()
        ]
        new = self._path.with_suffix(".new")
        with suppress(OSError):
            new.write_text(json.dumps(items))
            os.replace(new, self._path)  # noqa: PTH105 - a rename that replaces, on every platform


def _image(item: Any) -> PulledImage:
    return PulledImage(str(item["name"]), str(item["id"]), float(item["used"]))
