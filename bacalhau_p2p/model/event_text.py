"""What an event of a history says beside its kind."""

from __future__ import annotations


def news(kind: str, message: str) -> str:
    """The message of an event of this kind, on one line and without what the kind says already."""
    word, text = kind.lower(), " ".join(message.split())
    return "" if text.rstrip("s") == word.rstrip("s") else text.removeprefix(f"{word}; ")
