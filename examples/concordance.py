"""Where and how often words are used in some books: a Python function over many files, near the data.

bacalhau-p2p devstack --engine wasm -- python examples/concordance.py [WORD ...]

Each book is a job. It runs on a node that has the book, if one has, in CPython for WebAssembly, and only what
it finds is sent: the most frequent words, and every place of the words that were asked for.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import trio

from bacalhau_p2p import Client, Input, remote

TEXTS = Path(__file__).parent / "wordcount" / "texts"
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
AROUND = 30
"""Characters that are shown before and after a word."""


@dataclass(frozen=True)
class Book:
    title: str
    frequencies: dict[str, int]
    places: dict[str, list[str]]
    """By word, the lines in which it stands."""


@remote(memory="256mb")
def read_book(wanted: tuple[str, Path, list[str]]) -> Book:
    """Runs on a compute node. `Book`, `WORD` and `AROUND` come along."""
    title, path, words = wanted
    text = " ".join(path.read_text().split())
    lower = text.lower()
    places: dict[str, list[str]] = {word: [] for word in words}
    for found in WORD.finditer(lower):
        if found[0] in places:
            before = text[max(0, found.start() - AROUND) : found.start()]
            after = text[found.end() : found.end() + AROUND]
            places[found[0]].append(f"{before:>{AROUND}}[{text[found.start() : found.end()]}]{after}")
    return Book(title, dict(Counter(WORD.findall(lower)).most_common(1000)), places)


def api() -> str:
    """The URL of the node, from the same variables as the command line."""
    host = os.environ.get("BACALHAU_P2P_API_HOST", "127.0.0.1")
    return f"http://{host}:{os.environ.get('BACALHAU_P2P_API_PORT', '1234')}"


async def main(words: list[str]) -> None:
    async with Client(api()) as client:
        books = [(path.stem, Input(await client.add(path)), words) for path in sorted(TEXTS.iterdir())]
        total: Counter[str] = Counter()
        async for book in client.map(read_book, books):
            total.update(book.frequencies)
            for word, places in book.places.items():
                print(f"{book.title}: {len(places)} times {word!r}")
                for place in places[:3]:
                    print(f"  {place}")
        print("together, most often:", ", ".join(f"{word} ({n})" for word, n in total.most_common(8)))


if __name__ == "__main__":
    trio.run(main, [word.lower() for word in sys.argv[1:]] or ["paradise"])
