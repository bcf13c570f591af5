"""Count the words of three books, each in a job of its own, without async: `count_words.py` for scripts.

bacalhau-p2p devstack -- python examples/count_words_sync.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from bacalhau_p2p import SyncClient, wasm

WORDCOUNT = Path(__file__).parent / "wordcount"


def main() -> None:
    with SyncClient() as client:
        module = client.add(WORDCOUNT / "wordcount.wasm")
        books = [client.add(book) for book in sorted((WORDCOUNT / "texts").glob("*.txt"))]
        job = client.submit(wasm(module, "/inputs", name="one book", inputs={"/inputs": books[0]}))
        for event in job.events():
            if event.state:
                print(f"{event.kind}: {event.state}", file=sys.stderr)
        with job.wait_result(check=True).open("stdout") as file:
            print(file.read(500).decode().splitlines()[1])
        for result in client.map(wasm(module, "/inputs", name="each book"), books, limit=2, check=True):
            print(result.stdout.decode().splitlines()[1])


if __name__ == "__main__":
    main()
