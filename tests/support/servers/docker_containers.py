"""Containers on the engine of the tests."""

from __future__ import annotations

import uuid

import docker

from bacalhau_p2p.executors.docker.container_config import EXECUTION_LABEL, NODE_LABEL, container_name


def containers_of(client: docker.DockerClient, node_id: str) -> list[str]:
    return [c.name for c in client.containers.list(all=True, filters={"label": f"{NODE_LABEL}={node_id}"})]


def leave_container(client: docker.DockerClient, node_id: str) -> str:
    """A running container like one whose node was killed."""
    name = container_name(f"stale-{uuid.uuid4()}")
    client.containers.run(
        "busybox:latest",
        ["sleep", "3600"],
        name=name,
        detach=True,
        network_mode="none",
        labels={NODE_LABEL: node_id, EXECUTION_LABEL: name},
    )
    return name
