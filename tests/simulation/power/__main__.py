"""`python -m tests.simulation.power`: cut the power at many places, and report what that showed."""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from tests.simulation.checks.violation import Violation
from tests.simulation.power.cuts import cut, places
from tests.simulation.power.recording import record
from tests.simulation.services.deterministic import fast_folder
from tests.support.fresh_seeds import random_seed


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 if every promise was kept, 1 if one was broken."""
    parser = ArgumentParser(
        prog="python -m tests.simulation.power",
        description="Cut the power of a network at many places of its work.",
    )
    parser.add_argument(
        "--cuts", type=int, metavar="N", help="cuts for each seed (default: every loss at every place)"
    )
    parser.add_argument(
        "--resume", type=int, default=20, metavar="N", help="cuts after which nodes start again (default: 20)"
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="number of seeds (default: 1)")
    parser.add_argument(
        "--first-seed", type=int, metavar="K", help="the first seed (default: drawn at random)"
    )
    options = parser.parse_args(arguments)
    first = options.first_seed if options.first_seed is not None else random_seed()
    for seed in range(first, first + options.seeds):
        with tempfile.TemporaryDirectory(dir=fast_folder()) as name:
            try:
                recording = record(seed, Path(name) / "work")
                findings = cut(recording, options.cuts, resume=options.resume)
            except Violation as violation:
                print(f"seed {seed}: {violation}")  # noqa: T201
                return 1
        print(f"seed {seed}: {len(places(recording))} places; {findings}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
