"""Jobs as users and peers write them: the parser, quantities, URLs, and the `faults` of every adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from bacalhau_p2p.errors import InvalidJob
from bacalhau_p2p.executors.docker.executor import DockerExecutor
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.executors.wasm.executor import WasmExecutor
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.parsing import job_from_mapping, parse_job
from bacalhau_p2p.model.quantities import parse_bytes, parse_cpu, parse_duration, parse_gpu
from bacalhau_p2p.outbound.addresses import AddressGuard
from bacalhau_p2p.outbound.urls import InvalidWebURL, parse_web_url
from bacalhau_p2p.publishers.chain import ChainPublisher
from bacalhau_p2p.publishers.noop import NoopPublisher
from bacalhau_p2p.storage.git.provider import GitStorage
from bacalhau_p2p.storage.inline import InlineStorage
from bacalhau_p2p.storage.local.provider import LocalStorage
from bacalhau_p2p.storage.url.provider import UrlStorage
from tests.fuzz.mutation import HOSTILE, mutated, mutated_bytes

JOB: dict[str, Any] = {
    "Name": "n",
    "Namespace": "d",
    "Priority": 1,
    "Count": 1,
    "Labels": {"a": "b"},
    "Meta": {"a": "b"},
    "Constraints": [{"Key": "a", "Operator": "in", "Values": ["b"]}],
    "Verifier": {"Type": "deterministic", "Params": {"Confidence": 2}},
    "Deal": {"MinBids": 1},
    "Tasks": [
        {
            "Name": "main",
            "Engine": {
                "Type": "docker",
                "Params": {
                    "Image": "busybox",
                    "Entrypoint": ["a"],
                    "Parameters": ["b"],
                    "WorkingDirectory": "/t",
                },
            },
            "Env": {"X": "y"},
            "InputSources": [
                {"Target": "/in", "Alias": "z", "Source": {"Type": "inline", "Params": {"URL": "data:,x"}}},
                {"Target": "/b", "Source": {"Type": "url", "Params": {"URL": "https://example.org/x"}}},
            ],
            "ResultPaths": [{"Name": "o", "Path": "/o"}],
            "Publisher": {"Type": "ipfs", "Params": {}},
            "Resources": {"CPU": "0.5", "Memory": "10mb", "Disk": "1mb", "GPU": ""},
            "Network": {"Type": "None"},
            "Timeouts": {"ExecutionTimeout": 60, "QueueTimeout": "10s", "TotalTimeout": "1h"},
        }
    ],
}
PARAMS: dict[str, dict[str, Any]] = {
    "inline": {"URL": "data:text/plain;base64,aGk="},
    "localdirectory": {"SourcePath": "/allowed/x", "ReadWrite": False},
    "url": {"URL": "https://example.org/a"},
    "git": {"URL": "https://example.org/a.git", "Ref": "main"},
    "docker": {"Image": "ghcr.io/a/b:c", "Parameters": ["x"], "EnvironmentVariables": ["A=b"]},
    "wasm": {"EntryModule": "x", "Parameters": ["y"], "ImportModules": ["z"]},
    "noop": {"ExitCode": 1},
    "fanout": {"Publishers": [{"Type": "noop"}]},
}


class Jobs:
    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="fuzz-")
        guard, nothing = AddressGuard(()), None
        publishers = {"noop": NoopPublisher()}
        self._faults: dict[str, Callable[[SpecConfig], object]] = {
            "inline": InlineStorage().faults,
            "localdirectory": LocalStorage(["/allowed/**:rw"]).faults,
            "url": UrlStorage(guard, nothing).faults,  # type: ignore[arg-type]  # faults ask for nothing
            "git": GitStorage(guard, nothing).faults,  # type: ignore[arg-type]
            "docker": DockerExecutor("n").faults,
            "wasm": WasmExecutor(Path(self._folder.name) / "cache").faults,
            "noop": NoopExecutor().faults,
            "fanout": ChainPublisher("fanout", lambda: publishers).faults,
        }

    def run(self, rng: Random) -> bool:
        tries = (self._parse_mapping, self._parse_text, self._adapter_faults, _quantity, _url)
        return rng.choice(tries)(rng)

    def close(self) -> None:
        self._folder.cleanup()

    def _parse_mapping(self, rng: Random) -> bool:
        try:
            spec = job_from_mapping(mutated(JOB, rng, rng.choice((0, 1, 1, 2, 5))))
        except InvalidJob as error:
            str(error).encode()
            return False
        assert type(spec).model_validate_json(spec.model_dump_json(by_alias=True)) == spec
        return True

    def _parse_text(self, rng: Random) -> bool:
        value = mutated(JOB, rng, rng.choice((0, 1)))
        try:
            text = rng.choice((json.dumps, yaml.safe_dump))(value)
        except (TypeError, ValueError, yaml.YAMLError):
            return False  # not a value of these formats
        try:
            parse_job(mutated_bytes(text.encode("utf-8", "surrogatepass"), rng, rng.choice((0, 1, 1, 3))))
        except InvalidJob as error:
            str(error).encode()
            return False
        return True

    def _adapter_faults(self, rng: Random) -> bool:
        kind = rng.choice(tuple(PARAMS))
        try:
            config = SpecConfig(type=kind, params=mutated(PARAMS[kind], rng, rng.choice((1, 1, 2))))
        except ValueError:
            return False  # refused before it reaches an adapter
        return not self._faults[kind](config)


def _quantity(rng: Random) -> bool:
    parse = rng.choice((parse_bytes, parse_cpu, parse_duration, parse_gpu))
    value = rng.choice(
        (*HOSTILE, "1" * 100_000, "1h" * 50_000, " " * 100_000 + "1", "1.5Gi", "500m", "1h30m")
    )
    text = value if isinstance(value, str) else str(value)
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _url(rng: Random) -> bool:
    text = mutated_bytes(b"https://user@ex.ample:8080/a/../b?c#d", rng, rng.choice((1, 2, 5))).decode(
        "utf-8", "replace"
    )
    try:
        parse_web_url(rng.choice((text, text, "http://" + "a." * 50_000, "http://xn--" + text[:10])))
    except InvalidWebURL:
        return False
    return True
