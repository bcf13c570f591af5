"""Count the words of three books, each in a job of its own, on trio or on asyncio.

bacalhau-p2p devstack -- python examples/count_words.py trio
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from bacalhau_p2p import Client, wasm

WORDCOUNT = Path(__file__).parent / "wordcount"


async def main() -> None:
    async with Client() as client:
        module = await client.add(WORDCOUNT / "wordcount.wasm")
        books = [await client.add(book) for book in sorted((WORDCOUNT / "texts").glob("*.txt"))]
        job = await client.submit(wasm(module, "/inputs", name="one book", inputs={"/inputs": books[0]}))
        async for event in job.events():
            if event.state:
                print(f"{event.kind}: {event.state}", file=sys.stderr)
        async with (await job.wait_result(check=True)).open("stdout") as file:
            print((await file.read(500)).decode().splitlines()[1])
        async for result in client.map(wasm(module, "/inputs", name="each book"), books, limit=2, check=True):
            print(result.stdout.decode().splitlines()[1])


if __name__ == "__main__":
    anyio.run(main, backend=sys.argv[1] if len(sys.argv) > 1 else "asyncio")
