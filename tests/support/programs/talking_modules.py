"""WebAssembly modules that write while they run, as jobs."""

from __future__ import annotations

import base64
from typing import Any

import wasmtime

_TALKER = """
(module
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  ;; 0: where the bytes are, 4: how many, 16: a subscription to a clock, 64: its event, 256: the bytes
  (func $say (param $fd i32)
    (local $now i64) (local $at i32)
    (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 128)))
    (local.set $now (i64.load (i32.const 128)))
    (local.set $at (i32.const 276))
    (i32.store8 (local.get $at) (i32.const 10))
    (loop $digits
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $now) (i64.const 10)))))
      (local.set $now (i64.div_u (local.get $now) (i64.const 10)))
      (br_if $digits (i64.ne (local.get $now) (i64.const 0))))
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (i32.sub (i32.const 277) (local.get $at)))
    (drop (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $sleep
    (i32.store8 (i32.const 24) (i32.const 0))
    (i32.store (i32.const 32) (i32.const 1))
    (i64.store (i32.const 40) (i64.const PAUSE))
    (i64.store (i32.const 48) (i64.const 1))
    (i32.store16 (i32.const 56) (i32.const 0))
    (drop (call $poll (i32.const 16) (i32.const 64) (i32.const 1) (i32.const 8))))
  (func (export "_start")
    (local $left i32)
    (local.set $left (i32.const LINES))
    (loop $again
      (call $say (i32.const 1))
      (call $sleep)
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $again (local.get $left)))
    (call $say (i32.const 2))
    (call $exit (i32.const 3))))
"""


_FLOOD = """
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (local $left i32)
    (memory.fill (i32.const 64) (i32.const 120) (i32.const 65536))
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 65536))
    (local.set $left (i32.const BLOCKS))
    (loop $again
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $again (local.get $left)))))
"""


def flood(size: int) -> dict[str, Any]:
    """A job that writes so many bytes to stdout, in blocks of 64 KiB."""
    return job_of(_FLOOD.replace("BLOCKS", str(size // 65536)))


def talker(*, lines: int, pause: float, **timeouts: float) -> dict[str, Any]:
    """A job that writes `lines` lines to stdout, `pause` seconds apart, then one to stderr, and exits with 3.

    A line is the time at which it was written, in nanoseconds.
    """
    text = _TALKER.replace("PAUSE", str(round(pause * 1e9))).replace("LINES", str(lines))
    return job_of(text, **timeouts)


def job_of(text: str, **timeouts: float) -> dict[str, Any]:
    """A job that runs a module from text."""
    module = base64.b64encode(wasmtime.wat2wasm(text)).decode()
    source = {"Type": "inline", "Params": {"URL": f"data:application/wasm;base64,{module}"}}
    return {
        "Tasks": [
            {
                "Engine": {"Type": "wasm", "Params": {"EntryModule": "/main.wasm"}},
                "InputSources": [{"Target": "/main.wasm", "Source": source}],
                "Timeouts": timeouts,
            }
        ]
    }
