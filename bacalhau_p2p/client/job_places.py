"""The arguments that a user gave, by the places in a job that they set: faults are told at the argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bacalhau_p2p.errors import Fault


def renamed(fault: Fault, places: Mapping[str, str]) -> Fault:
    """The fault at the argument that its place in the job comes from."""
    place = max((place for place in places if _within(fault.path, place)), key=len, default=None)
    if place is None:
        return fault
    argument = places[place]
    rest = fault.path.removeprefix(place) if argument in _MAPS else ""
    return Fault(argument + rest, fault.problem)


def _within(path: str, place: str) -> bool:
    return path.startswith(place) and path[len(place) : len(place) + 1] in ("", ".", "[")


def numbered(place: str, arguments: Sequence[str]) -> dict[str, str]:
    return {f"Tasks[0].{place}[{number}]": argument for number, argument in enumerate(arguments)}


_MAPS = frozenset({"env", "labels"})
"""Arguments whose faults are told with the key."""

_ENGINE = "Tasks[0].Engine.Params."
DOCKER_PLACES = {
    f"{_ENGINE}Image": "image",
    f"{_ENGINE}Parameters": "command",
    f"{_ENGINE}Entrypoint": "entrypoint",
    f"{_ENGINE}WorkingDirectory": "workdir",
}
WASM_PLACES = {
    f"{_ENGINE}EntryModule": "module",
    f"{_ENGINE}ImportModules": "imports",
    f"{_ENGINE}Parameters": "arguments",
    f"{_ENGINE}Entrypoint": "entrypoint",
}
PLACES = {
    "Name": "name",
    "Namespace": "namespace",
    "Labels": "labels",
    "Type": "type",
    "Count": "count",
    "Constraints": "constraints",
    "Priority": "priority",
    "Verifier": "verifier",
    "Verifier.Params.Confidence": "confidence",
    "Deal.MinBids": "min_bids",
    "Deal.Replicas": "replicas",
    "KeepFailedResults": "keep_failed_results",
    "Tasks[0].InputSources": "inputs",
    "Tasks[0].ResultPaths": "outputs",
    "Tasks[0].Env": "env",
    "Tasks[0].Publisher": "publisher",
    "Tasks[0].Resources.CPU": "cpu",
    "Tasks[0].Resources.Memory": "memory",
    "Tasks[0].Resources.Disk": "disk",
    "Tasks[0].Resources.GPU": "gpu",
    "Tasks[0].Network": "network",
    "Tasks[0].Network.Domains": "domains",
    "Tasks[0].Timeouts": "total_timeout",
    "Tasks[0].Timeouts.ExecutionTimeout": "timeout",
    "Tasks[0].Timeouts.QueueTimeout": "queue_timeout",
}
"""The argument that each place in a job comes from."""
