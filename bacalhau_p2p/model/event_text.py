"""What an event of a history says beside its kind."""

from __future__ import annotations

import re


def news(kind: str, message: str) -> str:
    """The message of an event of this kind, on one line and without what the kind says already."""
    word, text = kind.lower(), " ".join(message.split())
    partition = _PARTITION.match(text)
    start = partition[0] if partition is not None else ""
    text = text.removeprefix(start)
    if text.rstrip("s") == word.rstrip("s"):
        return start.removesuffix(": ")
    return start + text.removeprefix(f"{word}; ").removeprefix(f"{word} ")


_PARTITION = re.compile("partition [0-9]+: ")
