"""Which node a client talks to when its user does not say."""

from __future__ import annotations

import pytest

from bacalhau_p2p.client.client import Client
from bacalhau_p2p.client.environment import ENV_HOST, ENV_PORT, ENV_TOKEN, api_url, host_of, port_of
from bacalhau_p2p.errors import SettingsError
from tests.support.servers.fake_node import FakeNode


def test_the_environment_names_the_node_or_it_is_the_one_on_this_machine():
    assert (host_of({}), port_of({})) == ("127.0.0.1", 1234)
    environment = {ENV_HOST: "lab", ENV_PORT: "99"}
    assert (host_of(environment), port_of(environment)) == ("lab", 99)
    assert api_url("::1", 7) == "http://[::1]:7"


@pytest.mark.parametrize("port", ["x", "0", "65536", "-1", "٣"])
def test_what_is_not_a_port_is_an_error(port: str):
    with pytest.raises(SettingsError, match=f"^{ENV_PORT}: '{port}' is not a port$"):
        port_of({ENV_PORT: port})


async def test_a_client_uses_the_node_and_the_token_of_the_environment(fake_node: FakeNode, monkeypatch):
    monkeypatch.setenv(ENV_PORT, str(fake_node.port))
    monkeypatch.setenv(ENV_TOKEN, "secret")
    async with Client() as client:
        await client.nodes()
    assert fake_node.authorizations == ["Bearer secret"]
