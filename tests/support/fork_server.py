"""Processes that are forked from one that has imported what they need: they start in 50 ms instead of 2 s."""

from __future__ import annotations

import multiprocessing

context = multiprocessing.get_context("forkserver")
"""Its server starts with the first process that is asked for, and ends with this process."""
context.set_forkserver_preload(["tests.support.imported_once"])
