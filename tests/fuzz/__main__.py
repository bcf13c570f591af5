"""`python -m tests.fuzz [PART...]`: fuzz parts of the program, and print what that showed."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from concurrent.futures import ProcessPoolExecutor

from tests.fuzz.campaign import STALL, Report, rng_for, run_part
from tests.fuzz.parts import PARTS

SHARE = {"requester": 0.1, "compute": 0.1}
"""Parts of which an input takes longer get this share of the inputs of the others."""


def main() -> int:
    options = _options()
    if options.only is not None:
        return _run_only(options)
    parts = options.parts or list(PARTS)
    print(f"first seed  {options.seed}")
    weight = sum(SHARE.get(part, 1.0) for part in parts)
    chunks = [
        (part, options.seed, number * size, size)
        for part in parts
        for size in [max(1, int(options.inputs * SHARE.get(part, 1.0) / weight / options.processes))]
        for number in range(options.processes)
    ]
    with ProcessPoolExecutor(options.processes) as pool:
        reports = list(pool.map(_run_chunk, chunks))
    columns = f"{'part':<10} {'inputs':>9} {'accepted':>9} {'per s':>7} {'slowest':>9}"
    print(f"{columns}  memory (MiB)    faults  stalls")
    for part in parts:
        _print_part(part, [report for report in reports if report.part == part])
    return 0 if all(report.clean for report in reports) else 1


def _run_chunk(chunk: tuple[str, int, int, int]) -> Report:
    part, seed, first, inputs = chunk
    return run_part(part, PARTS[part], seed=seed, first=first, inputs=inputs)


def _print_part(part: str, reports: list[Report]) -> None:
    inputs, accepted = sum(r.inputs for r in reports), sum(r.accepted for r in reports)
    seconds, slowest = max(r.seconds for r in reports), max(r.slowest for r in reports)
    memory = " ".join(str(max(values)) for values in zip(*(r.memory for r in reports), strict=True))
    faults, stalls = (
        {k: v for r in reports for k, v in r.deaths.items()},
        [n for r in reports for n in r.stalls],
    )
    rate = inputs / max(seconds, 0.001)
    print(
        f"{part:<10} {inputs:>9,} {accepted:>9,} {rate:>7,.0f} {slowest * 1000:>6.0f} ms  {memory:<15} "
        f"{len(faults):>6}  {len(stalls):>6}"
    )
    for fault, number in faults.items():
        print(f"    {fault}\n        again: scripts/fuzz {part} --seed {reports[0].seed} --only {number}")
    for number in stalls:
        print(f"    over {STALL} s: scripts/fuzz {part} --seed {reports[0].seed} --only {number}")


def _run_only(options: Namespace) -> int:
    """One input again, its exception unhandled."""
    (part,) = options.parts
    fuzzed = PARTS[part]()
    try:
        print("accepted" if fuzzed.run(rng_for(part, options.seed, options.only)) else "refused")
    finally:
        fuzzed.close()
    return 0


def _options() -> Namespace:
    parser = ArgumentParser(
        prog="scripts/fuzz", description="Sends mutated input into what reads strangers' input."
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--inputs", type=int, default=100_000, help="over all parts (default: 100,000)")
    parser.add_argument(
        "--seed", type=int, default=int.from_bytes(os.urandom(4)), help="default: a random one"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, metavar="N", help="try input N of one part again")
    options = parser.parse_args()
    if options.only is not None and len(options.parts) != 1:
        parser.error("--only needs one part")
    return options


if __name__ == "__main__":
    sys.exit(main())
