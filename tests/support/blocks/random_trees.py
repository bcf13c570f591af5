"""Folders of random shape, one for each seed, with sizes on both sides of the limits of UnixFS."""

from __future__ import annotations

import random
from pathlib import Path

CHUNK = 262_144
LINKS = 174

_LETTERS = [
    "abcdefghijklmnopqrstuvwxyz",
    "ABCXYZ0123456789-_ ~%+&'\"()[]{}!$#@;,=^`|<>:*?\\",
    "äöüßéèñøåÆŒžłđ",
    "日本語中文字漢한국어",
    "العربيةעברית",
    "🙂𝄞🜁👩\u200d🔬",
    "e\u0301a\u0308\u212b\ufb01",  # what Unicode normalisation would change
    "\n\t\x01\x7f\u00a0\u2028",
]


_CROWDS = [(220, 1023), (220, 1025), (254, 903), (254, 904), (148, 3000)]
"""Bytes of each name and number of entries: just below 262,144 bytes and just above, twice; and double.

Implementations differ at exactly 262,144: older ones, such as aleph-cid and kubo 0.22, shard the folder,
newer ones and ours do not.
"""
_LONG = [LINKS * CHUNK - 1, LINKS * CHUNK, LINKS * CHUNK + 1, (LINKS + 1) * CHUNK]
_EDGES = [chunks * CHUNK + more for chunks in (1, 2, 3) for more in (-1, 0, 1)]


def make_tree(folder: Path, seed: int) -> Path:
    """Create `folder` without empty folders, symlinks and hidden names.

    Among any 200 consecutive seeds, each crowd, each long file and each edge occurs.
    """
    generator = random.Random(seed)
    folder.mkdir(parents=True)
    if seed % 40 == 7:
        _crowd(folder / _name(generator), *_CROWDS[seed // 40 % len(_CROWDS)], generator)
    if seed % 50 == 11:
        _sparse(folder / "long", _LONG[seed // 50 % len(_LONG)], generator)
    if seed % 5 == 0:
        (folder / "edge").write_bytes(generator.randbytes(_EDGES[seed // 5 % len(_EDGES)]))
    _fill(folder, generator, depth=generator.randrange(4))
    return folder


def _fill(folder: Path, generator: random.Random, depth: int) -> None:
    """Some files, and below them folders of up to `depth` levels."""
    for _ in range(generator.randint(1, 6)):
        (folder / _name(generator)).write_bytes(generator.randbytes(_size(generator)))
    for _ in range(generator.randint(1, 2) if depth else 0):
        below = folder / _name(generator)
        if not below.exists():
            below.mkdir()
            _fill(below, generator, depth - 1)


def _size(generator: random.Random) -> int:
    limit = generator.choice([1, 2, 100, 20_000, 20_000, 20_000, 4 * CHUNK])
    return generator.randrange(limit)


def _name(generator: random.Random, most: int = 255) -> str:
    """A name of one to `most` bytes, mostly a short one."""
    letters = generator.choice(_LETTERS) + generator.choice(_LETTERS)
    length = most if generator.random() < 0.05 else generator.randint(1, 20)
    name = ""
    while len((more := name + generator.choice(letters)).encode()) <= length:
        name = more
    return name or "x"


def _sparse(file: Path, size: int, generator: random.Random) -> None:
    """A file of many chunks, most of them zeros."""
    with file.open("wb") as opened:
        opened.truncate(size)
        for _ in range(5):
            opened.seek(generator.randrange(size - 100))
            opened.write(generator.randbytes(100))


def _crowd(folder: Path, width: int, entries: int, generator: random.Random) -> None:
    """A folder with so many entries, each with a name of `width` bytes."""
    folder.mkdir()
    for number in range(entries):
        start = f"{number}-{_name(generator, 60)}"
        name = start + "n" * (width - len(start.encode()))
        (folder / name).write_bytes(b"%d" % (number % 7))
