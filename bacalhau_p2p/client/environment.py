"""Which node a client talks to when its user does not say: as the environment says, or one on this machine.

Imports nothing slow: the command line uses it.
"""

from __future__ import annotations

from collections.abc import Mapping

from bacalhau_p2p.errors import SettingsError

DEFAULT_API_HOST = "127.0.0.1"
DEFAULT_API_PORT = 1234
ENV_HOST, ENV_PORT, ENV_TOKEN = "BACALHAU_P2P_API_HOST", "BACALHAU_P2P_API_PORT", "BACALHAU_P2P_API_TOKEN"


def api_url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def host_of(environment: Mapping[str, str]) -> str:
    return environment.get(ENV_HOST) or DEFAULT_API_HOST


def port_of(environment: Mapping[str, str]) -> int:
    """Raises SettingsError."""
    text = environment.get(ENV_PORT)
    if not text:
        return DEFAULT_API_PORT
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 65535:
        raise SettingsError(f"{ENV_PORT}: {text!r} is not a port")
    return int(text)
