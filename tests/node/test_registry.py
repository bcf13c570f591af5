"""Adapters by type: `registry`, `builtin_adapters`, `adapter_context` and `known_types`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.node import registry
from bacalhau_p2p.node.known_nodes import KnownNodes
from bacalhau_p2p.node.known_types import KnownTypes
from bacalhau_p2p.node.registry import AdapterContext
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.verifiers.noop import NoopVerifier


class PluggedIn(NoopExecutor):
    """An engine of another package."""

    def __init__(self, context: AdapterContext) -> None:
        self.context = context


class EntryPoint:
    name = "Plugged"

    def load(self) -> type[PluggedIn]:
        return PluggedIn


@pytest.fixture
def entry_points(monkeypatch):
    """Another package that offers the engine `plugged`."""

    def found(*, group: str) -> list[EntryPoint]:
        return [EntryPoint()] if group == "bacalhau_p2p.executors" else []

    monkeypatch.setattr(registry, "entry_points", found)
    registry._plugins.cache_clear()
    yield
    registry._plugins.cache_clear()


def context(folder: Path, **settings: object) -> AdapterContext:
    async def connect(address: str) -> PeerID:
        raise NotImplementedError

    return AdapterContext(
        settings=Settings(data_dir=folder, **settings),
        peer_id=PeerID("own"),
        folder=folder,
        content=None,
        addresses=lambda: (),
        connect=connect,
        api_url=lambda: "",
    )


def test_every_builtin_adapter_can_be_built(tmp_path):
    here = context(tmp_path)
    assert set(registry.executors(here)) == {"docker", "wasm", "noop"} == registry.engine_names()
    assert set(registry.storage(here)) <= registry.source_names()
    assert set(registry.publishers(here)) == registry.publisher_names()
    assert set(registry.verifiers(here)) == {"noop", "deterministic"}


def test_only_the_engines_in_the_settings_are_built(tmp_path):
    assert set(registry.executors(context(tmp_path, engines=("noop",)))) == {"noop"}


def test_an_unknown_engine_in_the_settings_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(
        SettingsError, match=r"^engines: unknown engine dokcer \(known: docker, noop, wasm\)$"
    ):
        registry.executors(context(tmp_path, engines=("noop", "dokcer")))


@pytest.mark.usefixtures("entry_points")
def test_an_engine_of_another_package_is_found_by_its_entry_point(tmp_path):
    here = context(tmp_path, engines=("plugged",))
    (engine,) = registry.executors(here).values()
    assert isinstance(engine, PluggedIn)
    assert engine.context is here
    assert "plugged" in registry.engine_names()


def job(engine: str, **more: object) -> JobSpec:
    return job_from_mapping({"Tasks": [{"Engine": {"Type": engine}}], **more})


def test_a_type_is_known_if_it_is_installed_or_a_known_node_offers_it():
    known_nodes = KnownNodes()
    types = KnownTypes(known_nodes, {"noop": NoopVerifier()})
    assert types.faults(job("noop")) == []
    (fault,) = types.faults(job("mpi"))
    assert (fault.path, fault.problem) == (
        "Tasks[0].Engine.Type",
        "unknown engine 'mpi' (known: docker, noop, wasm)",
    )
    known_nodes.update(NodeInfo(id=PeerID("a"), compute=ComputeInfo(engines=("mpi",))), 0.0)
    assert types.faults(job("mpi")) == []
    (fault,) = types.faults(job("noop", Verifier={"Type": "deterministic"}))
    assert fault.path == "Verifier.Type"
