"""The types of the values of settings: what each may be, and what is said about any other."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr

from bacalhau_p2p.encoding.multiaddrs import check_user_peer_address
from bacalhau_p2p.errors import RemoteProtocolError, SettingsError
from bacalhau_p2p.identity.peer_ids import public_key
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.documents import as_text
from bacalhau_p2p.model.domains import Domain
from bacalhau_p2p.model.image_names import is_registry
from bacalhau_p2p.model.quantities import parse_bytes, parse_seconds
from bacalhau_p2p.model.validation import matching
from bacalhau_p2p.storage.local.allowed_paths import AllowedPath


def _check_token(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value().strip()
    if not re.fullmatch(r"[\x20-\x7e]*", text):
        raise ValueError("must be one line of printable ASCII characters")
    return SecretStr(text)


def _check_url(text: str) -> str:
    if text and not re.fullmatch(r"https?://[^/\s?#]+\S*", text):
        raise ValueError("must be an http or https URL")
    return text


def _check_size(text: str) -> str:
    if text:
        parse_bytes(text)
    return text


def _check_peer(address: str) -> str:
    check_user_peer_address(address)
    return address


def _check_local_path(text: str) -> str:
    try:
        AllowedPath.parse(text)
    except SettingsError as error:
        raise ValueError(str(error)) from None
    return text


def _check_registry(text: str) -> str:
    if not is_registry(text):
        raise ValueError(f"{text!r} is not HOST or HOST:PORT, such as ghcr.io")
    return text


def _check_peer_id(peer: PeerID) -> PeerID:
    try:
        public_key(peer)
    except RemoteProtocolError as error:
        raise ValueError(f"must be a peer id such as 12D3KooW...: {error}") from error
    return peer


def _parse_time(value: object) -> object:
    """Accepts text such as `30m` beside numbers."""
    return parse_seconds(value) if isinstance(value, str) and value.strip()[-1:].isalpha() else value


def as_meant(value: object) -> object:
    """Numbers and booleans as the text that the author wrote: `cpu: 2` means "2"."""
    return as_text(value) if isinstance(value, bool | int | float) else value


_NAME = "[A-Za-z0-9._-]{1,64}"
NetworkName = Annotated[str, matching(_NAME, "must be 1 to 64 letters, digits, dots, hyphens or _")]
DhtPrefix = Annotated[str, matching(f"(/{_NAME}){{0,4}}", "must be 1 to 4 names, each behind a slash")]
JobUser = Annotated[
    str, matching("image|nobody|[0-9]{1,9}(:[0-9]{1,9})?", "must be image, nobody, UID or UID:GID")
]
Token = Annotated[SecretStr, AfterValidator(_check_token)]
"""A credential of this node. It is never shown."""
Url = Annotated[str, AfterValidator(_check_url)]
PeerIDs = tuple[Annotated[PeerID, AfterValidator(_check_peer_id)], ...]
Size = Annotated[str, AfterValidator(_check_size)]
"""Bytes as text, such as 50GB."""
Domains = tuple[Domain, ...]
Peer = Annotated[str, AfterValidator(_check_peer)]
"""The multiaddr of a peer, with its id."""
LocalPath = Annotated[str, AfterValidator(_check_local_path)]
Registry = Annotated[str, AfterValidator(_check_registry)]
Seconds = Annotated[float, BeforeValidator(_parse_time)]
