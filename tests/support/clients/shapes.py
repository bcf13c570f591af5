"""The shapes of what Bacalhau v1.9 answers, from dialogues of its own clients with its own server.

A shape is a type, a list with the shape of its items, a map with the shapes of the keys that must be there,
or several of these.
"""

from __future__ import annotations

from typing import Any

TEXT, WHOLE, FLAG = str, int, bool
NUMBER = (int, float)

STATE_TEXT = {"StateType": TEXT}
STATE_NUMBER = {"StateType": WHOLE, "Message": TEXT}
CONFIG = {"Type": TEXT}
TASK = {
    "Name": TEXT,
    "Engine": {"Type": TEXT, "Params": {}},
    "Publisher": CONFIG,
    "Resources": {"CPU": TEXT, "Memory": TEXT},
    "Network": CONFIG,
    "Timeouts": {},
}
JOB = {
    "ID": TEXT,
    "Name": TEXT,
    "Namespace": TEXT,
    "Type": TEXT,
    "Priority": WHOLE,
    "Count": WHOLE,
    "Constraints": [{"Key": TEXT, "Operator": TEXT, "Values": [TEXT]}],
    "Meta": {},
    "Labels": {},
    "Tasks": [TASK],
    "State": STATE_TEXT,
    "Version": WHOLE,
    "Revision": WHOLE,
    "CreateTime": WHOLE,
    "ModifyTime": WHOLE,
}
RUN_OUTPUT = {
    "Stdout": TEXT,
    "StdoutTruncated": FLAG,
    "stderr": TEXT,
    "StderrTruncated": FLAG,
    "ExitCode": WHOLE,
    "ErrorMsg": TEXT,
}
EXECUTION = {
    "ID": TEXT,
    "Namespace": TEXT,
    "EvalID": TEXT,
    "Name": TEXT,
    "NodeID": TEXT,
    "JobID": TEXT,
    "JobVersion": WHOLE,
    "AllocatedResources": {"Tasks": {}},
    "DesiredState": STATE_NUMBER,
    "ComputeState": STATE_NUMBER,
    "PublishedResult": CONFIG,
    "RunOutput": (RUN_OUTPUT, None),
    "PreviousExecution": TEXT,
    "NextExecution": TEXT,
    "FollowupEvalID": TEXT,
    "Revision": WHOLE,
    "CreateTime": WHOLE,
    "ModifyTime": WHOLE,
}
HISTORY = {
    "SeqNum": WHOLE,
    "Type": TEXT,
    "JobID": TEXT,
    "JobVersion": WHOLE,
    "Event": {"Message": TEXT, "Topic": TEXT, "Timestamp": TEXT},
    "Time": TEXT,
}
VERSION = {
    "Major": TEXT,
    "Minor": TEXT,
    "GitVersion": TEXT,
    "GitCommit": TEXT,
    "BuildDate": TEXT,
    "GOOS": TEXT,
    "GOARCH": TEXT,
}
CAPACITY = {"CPU": NUMBER, "Memory": WHOLE, "Disk": WHOLE}
NODE_INFO = {
    "NodeID": TEXT,
    "NodeType": TEXT,
    "Labels": {},
    "SupportedProtocols": [TEXT],
    "BacalhauVersion": VERSION,
}
COMPUTE_NODE_INFO = {
    **NODE_INFO,
    "ComputeNodeInfo": {
        "ExecutionEngines": [TEXT],
        "Publishers": [TEXT],
        "StorageSources": [TEXT],
        "MaxCapacity": CAPACITY,
        "QueueCapacity": {},
        "AvailableCapacity": CAPACITY,
        "MaxJobRequirements": CAPACITY,
        "RunningExecutions": WHOLE,
        "EnqueuedExecutions": WHOLE,
        "address": TEXT,
    },
}
CONNECTION = {
    "Status": TEXT,
    "LastHeartbeat": TEXT,
    "LastComputeSeqNum": WHOLE,
    "LastOrchestratorSeqNum": WHOLE,
    "ConnectedSince": TEXT,
    "DisconnectedSince": TEXT,
}
NODE = {
    "Info": NODE_INFO,
    "Membership": TEXT,
    "Connection": TEXT,
    "ConnectionState": CONNECTION,
}
ERROR = {"Status": WHOLE, "Message": TEXT, "RequestID": TEXT, "Code": TEXT, "Component": TEXT}
SUBMITTED = {"JobID": TEXT, "EvaluationID": TEXT, "Warnings": (None, [TEXT])}


def page_of(shape: Any, key: str = "Items") -> dict[str, Any]:
    return {"NextToken": TEXT, key: [shape]}


def mismatches(value: Any, shape: Any, path: str = "$") -> list[str]:
    """Where a value does not have a shape. More keys than the shape has do no harm."""
    if isinstance(shape, tuple):
        found = [mismatches(value, each, path) for each in shape]
        return [] if any(not each for each in found) else found[0]
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{path} is no map: {value!r}"]
        missing = [f"{path}.{key} is missing" for key in shape if key not in value]
        return missing + [
            each
            for key, item in shape.items()
            if key in value
            for each in mismatches(value[key], item, f"{path}.{key}")
        ]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{path} is no list: {value!r}"]
        return [each for i, item in enumerate(value) for each in mismatches(item, shape[0], f"{path}[{i}]")]
    if shape is None:
        return [] if value is None else [f"{path} is not null: {value!r}"]
    exact = isinstance(value, shape) and (shape is bool or not isinstance(value, bool))
    return [] if exact else [f"{path} is no {shape.__name__}: {value!r}"]
