"""A compute-over-data network: jobs run on the peers that have the data.

from bacalhau_p2p import Client, docker

async with Client("http://127.0.0.1:1234") as client:
    job = await client.submit(docker("busybox", "echo", "hello"))
    result = await job.wait_result()

`docs/python.md` is the guide. Names are imported on first use: a program that only needs HTTP loads neither
libp2p nor any engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bacalhau_p2p.version import __version__

if TYPE_CHECKING:
    from bacalhau_p2p.client.client import Client
    from bacalhau_p2p.client.functions import FunctionJob
    from bacalhau_p2p.client.interface import AnyNode
    from bacalhau_p2p.client.jobs import JobHandle, JobLike
    from bacalhau_p2p.client.mapping import AsCompleted, JobMap
    from bacalhau_p2p.client.outcomes import Outcome
    from bacalhau_p2p.client.results import Result, ResultFile
    from bacalhau_p2p.client.specs import InputLike, JobOptions, divided, docker, wasm
    from bacalhau_p2p.client.sync_client import SyncClient
    from bacalhau_p2p.client.sync_jobs import SyncFunctionJob, SyncJobHandle, SyncOutcome, SyncResult
    from bacalhau_p2p.errors import (
        AmbiguousID,
        ApiError,
        BacalhauError,
        ContentError,
        ContentInUse,
        ContentNotFound,
        ContentTooLarge,
        DiskFull,
        EventDropped,
        ExecutionError,
        ExecutorError,
        Fault,
        InvalidCID,
        InvalidContent,
        InvalidFunction,
        InvalidJob,
        InvalidValue,
        JobEnded,
        JobFailed,
        JobNotFinished,
        LogsUnavailable,
        MessageTooLarge,
        NodeUnavailable,
        NoRoom,
        PathNotFound,
        PeerUnreachable,
        ProtocolError,
        PublisherError,
        RemoteError,
        RemoteProtocolError,
        RunTimedOut,
        SettingsError,
        StorageError,
        StoreFailed,
        TransportError,
        UnknownJob,
        UnknownNode,
        VerifierError,
    )
    from bacalhau_p2p.functions.inputs import Input
    from bacalhau_p2p.functions.remote import RemoteFunction, remote
    from bacalhau_p2p.model.execution import Execution, Job, PublishedResult, RunOutput
    from bacalhau_p2p.model.history import EventKind, HistoryEvent
    from bacalhau_p2p.model.job import JobSpec
    from bacalhau_p2p.model.logs import LogPiece, LogStream
    from bacalhau_p2p.model.node import NodeInfo
    from bacalhau_p2p.model.state import ExecutionState, JobState
    from bacalhau_p2p.model.usage import Usage
    from bacalhau_p2p.node import Node, open_node
    from bacalhau_p2p.settings import Settings, load_settings

__all__ = [
    "AmbiguousID",
    "AnyNode",
    "ApiError",
    "AsCompleted",
    "BacalhauError",
    "Client",
    "ContentError",
    "ContentInUse",
    "ContentNotFound",
    "ContentTooLarge",
    "DiskFull",
    "EventDropped",
    "EventKind",
    "Execution",
    "ExecutionError",
    "ExecutionState",
    "ExecutorError",
    "Fault",
    "FunctionJob",
    "HistoryEvent",
    "Input",
    "InputLike",
    "InvalidCID",
    "InvalidContent",
    "InvalidFunction",
    "InvalidJob",
    "InvalidValue",
    "Job",
    "JobEnded",
    "JobFailed",
    "JobHandle",
    "JobLike",
    "JobMap",
    "JobNotFinished",
    "JobOptions",
    "JobSpec",
    "JobState",
    "LogPiece",
    "LogStream",
    "LogsUnavailable",
    "MessageTooLarge",
    "NoRoom",
    "Node",
    "NodeInfo",
    "NodeUnavailable",
    "Outcome",
    "PathNotFound",
    "PeerUnreachable",
    "ProtocolError",
    "PublishedResult",
    "PublisherError",
    "RemoteError",
    "RemoteFunction",
    "RemoteProtocolError",
    "Result",
    "ResultFile",
    "RunOutput",
    "RunTimedOut",
    "Settings",
    "SettingsError",
    "StorageError",
    "StoreFailed",
    "SyncClient",
    "SyncFunctionJob",
    "SyncJobHandle",
    "SyncOutcome",
    "SyncResult",
    "TransportError",
    "UnknownJob",
    "UnknownNode",
    "Usage",
    "VerifierError",
    "__version__",
    "divided",
    "docker",
    "load_settings",
    "open_node",
    "remote",
    "wasm",
]

_ROOMS = {
    "client.client": ("Client",),
    "client.functions": ("FunctionJob",),
    "client.interface": ("AnyNode",),
    "client.jobs": ("JobHandle", "JobLike"),
    "client.mapping": ("AsCompleted", "JobMap"),
    "client.outcomes": ("Outcome",),
    "client.results": ("Result", "ResultFile"),
    "client.specs": ("InputLike", "JobOptions", "divided", "docker", "wasm"),
    "client.sync_client": ("SyncClient",),
    "client.sync_jobs": ("SyncFunctionJob", "SyncJobHandle", "SyncOutcome", "SyncResult"),
    "functions.inputs": ("Input",),
    "functions.remote": ("RemoteFunction", "remote"),
    "model.execution": ("Execution", "Job", "PublishedResult", "RunOutput"),
    "model.history": ("EventKind", "HistoryEvent"),
    "model.job": ("JobSpec",),
    "model.logs": ("LogPiece", "LogStream"),
    "model.node": ("NodeInfo",),
    "model.state": ("ExecutionState", "JobState"),
    "model.usage": ("Usage",),
    "node": ("Node", "open_node"),
    "settings": ("Settings", "load_settings"),
}
"""The module of each public name; any other is an error."""
_MODULES = {name: f"{__name__}.{module}" for module, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_MODULES.get(name, f"{__name__}.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
