"""Prints events one by one, as they come, in the formats of lists."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from bacalhau_p2p.cli.job_view import JSON, short_id, timeline_cells
from bacalhau_p2p.cli.listing import csv_row, print_yaml
from bacalhau_p2p.cli.printing import print_line
from bacalhau_p2p.cli.table import folded
from bacalhau_p2p.cli.terminal import size_of

_COLUMNS = {"JOB": 36, "TIME": 27, "EVENT": 11, "EXECUTION": 38, "NODE": 52, "MESSAGE": 0}
"""Those of csv and wide, and how wide they are there."""


class EventPrinter:
    """With `of_all` the events are those of all jobs, and a line begins with the id of the job."""

    def __init__(self, output: str, *, of_all: bool = False, hide_header: bool = False) -> None:
        self._output = output
        self._of_all = of_all
        if output in ("csv", "wide") and not hide_header:
            self._print_row(list(_COLUMNS))

    def show(self, event: JSON) -> None:
        if self._output == "json":
            print_line(json.dumps(event))
        elif self._output == "yaml":
            print_yaml([event])
        elif self._output == "id":
            print_line(str(event["Position" if self._of_all else "SeqNum"]))
        elif self._output == "table":
            self._print_entry(event)
        else:
            self._print_row(_whole_cells(event))

    def _print_entry(self, event: JSON) -> None:
        *cells, message = timeline_cells(event)
        job = [f"{short_id(str(event.get('JobID') or '')):<8}"] if self._of_all else []
        width = size_of(sys.stdout)[0] if sys.stdout.isatty() else None
        for line in folded("  ".join([*job, *cells, ""]), message, width):
            print_line(line)

    def _print_row(self, cells: Sequence[str]) -> None:
        if self._output == "csv":
            return print_line(csv_row(cells))
        padded = (f"{cell:<{width}}" for cell, width in zip(cells, _COLUMNS.values(), strict=True))
        return print_line("  ".join(padded).rstrip())


def _whole_cells(event: JSON) -> list[str]:
    told: JSON = event.get("Event") or {}
    node = (told.get("Details") or {}).get("NodeID")
    ids_and_time = event.get("JobID"), event.get("Time"), event.get("Kind"), event.get("ExecutionID"), node
    return [*(str(cell or "") for cell in ids_and_time), " ".join(str(told.get("Message") or "").split())]
