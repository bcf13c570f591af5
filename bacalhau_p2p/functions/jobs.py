"""The job that calls a function, and its answer."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bacalhau_p2p.errors import PathNotFound, RemoteError
from bacalhau_p2p.functions.encoding import read_answer
from bacalhau_p2p.functions.guest.values import MAX_VALUE
from bacalhau_p2p.functions.options import FunctionOptions
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.runtime.text import printable

MAX_INLINE = 64 * 1024
"""Bytes of arguments that are in the job itself; more are content of their own."""

INTERPRETER = "/interpreter/python.wasm"
FUNCTION = "/function"
CALL = "/call/arguments.json"
VALUE = "/value"
ANSWER = "value/value.json"
"""The file with the answer in the results folder."""
OUTPUTS = "/outputs"

_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
_ARGUMENTS = ("-S", f"{FUNCTION}/run.py", CALL, VALUE)
"""Without `site`, which finds nothing there."""
_CRASHED = 134


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a function: the CIDs of what it needs."""

    name: str
    interpreter: str
    bundle: str
    arguments: bytes | str
    """The arguments, or the CID of a file with them."""
    inputs: Mapping[str, str]
    """By path in the job, a CID."""


def job_of(call: Call, options: FunctionOptions) -> JobSpec:
    """Raises InvalidJob for options that no job has."""
    sources = {INTERPRETER: call.interpreter, FUNCTION: call.bundle, **call.inputs}
    task = {
        "Engine": {
            "Type": "wasm",
            "Params": {
                "EntryModule": INTERPRETER,
                "Parameters": list(_ARGUMENTS),
                "EnvironmentVariables": _ENVIRONMENT,
            },
        },
        "InputSources": [
            *({"Target": target, "Source": _content(cid)} for target, cid in sources.items()),
            {"Target": CALL, "Source": _arguments(call.arguments)},
        ],
        "ResultPaths": [{"Name": "value", "Path": VALUE}, {"Name": "outputs", "Path": OUTPUTS}],
        "Resources": {"CPU": str(options.cpu), "Memory": options.memory},
        "Timeouts": {"ExecutionTimeout": options.timeout},
    }
    return job_from_mapping({"Name": call.name, "Count": options.count, **options.job, "Tasks": [task]})


def _content(cid: str) -> dict[str, Any]:
    return {"Type": "ipfs", "Params": {"CID": cid}}


def _arguments(arguments: bytes | str) -> dict[str, Any]:
    if isinstance(arguments, str):
        return _content(arguments)
    url = f"data:application/json;base64,{base64.b64encode(arguments).decode()}"
    return {"Type": "inline", "Params": {"URL": url}}


class CallResult(Protocol):
    """The result of a job, as far as a call needs it."""

    @property
    def exit_code(self) -> int: ...

    @property
    def stderr(self) -> bytes: ...

    async def read(self, path: str, *, limit: int) -> bytes: ...


async def value_of(result: CallResult, classes: Mapping[str, type], memory: str) -> Any:
    """What the function returned that ran as this job. `classes` are those that it uses, by name.

    Raises RemoteError for what it raised, InvalidValue for a result that is none, ContentError.
    """
    try:
        answer = await result.read(ANSWER, limit=MAX_VALUE)
    except PathNotFound:
        raise no_answer(result.exit_code, result.stderr, memory) from None
    return read_answer(answer, classes)


def no_answer(exit_code: int, stderr: bytes, memory: str) -> RemoteError:
    """The error of a run that ended without an answer."""
    last = printable(stderr.decode(errors="replace"), keep_lines=True)
    if exit_code == _CRASHED:
        message = f"the interpreter crashed: it may have needed more memory than {memory}"
    else:
        message = f"the interpreter ended with exit code {exit_code}, and returned nothing"
    return RemoteError(message, traceback=last)
