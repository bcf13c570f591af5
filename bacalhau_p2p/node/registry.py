"""Finds adapters by type: those of this package, and those that installed packages offer as entry points.

An entry point of the group `bacalhau_p2p.executors`, `.storage`, `.publishers` or `.verifiers` names a
callable that takes an `AdapterContext` and returns the adapter.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Literal

from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.executors.interface import Executor
from bacalhau_p2p.node.adapter_context import AdapterContext as AdapterContext
from bacalhau_p2p.node.builtin_adapters import EXECUTORS, PUBLISHERS, STORAGE, VERIFIERS, Factory
from bacalhau_p2p.publishers.interface import Publisher
from bacalhau_p2p.storage.interface import StorageProvider
from bacalhau_p2p.verifiers.interface import Verifier

_CHAINS: tuple[Literal["fanout"], Literal["fallback"]] = ("fanout", "fallback")
"""Publishers that use other publishers."""


def executors(context: AdapterContext) -> dict[str, Executor]:
    """The executors that the settings ask for, or all of them, by engine type. Raises SettingsError."""
    factories, chosen = {**EXECUTORS, **_plugins("executors")}, context.settings.engines
    if missing := set(chosen) - factories.keys():
        known = ", ".join(sorted(factories))
        raise SettingsError(f"engines: unknown engine {', '.join(sorted(missing))} (known: {known})")
    return {name: factory(context) for name, factory in factories.items() if not chosen or name in chosen}


def storage(context: AdapterContext) -> dict[str, StorageProvider]:
    """The storage providers that work on this computer, by source type."""
    built = {name: factory(context) for name, factory in {**STORAGE, **_plugins("storage")}.items()}
    return {name: provider for name, provider in built.items() if provider is not None}


def publishers(context: AdapterContext) -> dict[str, Publisher]:
    """All publishers, by type."""
    from bacalhau_p2p.publishers.chain import ChainPublisher

    built = {name: factory(context) for name, factory in {**PUBLISHERS, **_plugins("publishers")}.items()}
    return {**built, **{name: ChainPublisher(name, lambda: built) for name in _CHAINS}}


def verifiers(context: AdapterContext) -> dict[str, Verifier]:
    """All verifiers, by type."""
    return {name: factory(context) for name, factory in {**VERIFIERS, **_plugins("verifiers")}.items()}


def engine_names() -> set[str]:
    """The engine types of this installation, whether or not they work on this computer."""
    return {*EXECUTORS, *_plugins("executors")}


def source_names() -> set[str]:
    """The storage source types of this installation."""
    return {*STORAGE, *_plugins("storage")}


def publisher_names() -> set[str]:
    """The publisher types of this installation."""
    return {*PUBLISHERS, *_plugins("publishers"), *_CHAINS}


def find_plugins() -> None:
    """Find the adapters of installed packages now. Later calls, also in forked processes, take no time."""
    for kind in ("executors", "storage", "publishers", "verifiers"):
        _plugins(kind)


@cache  # reading the metadata of every installed package takes milliseconds
def _plugins(kind: str) -> dict[str, Factory]:
    return {point.name.lower(): point.load() for point in entry_points(group=f"bacalhau_p2p.{kind}")}
