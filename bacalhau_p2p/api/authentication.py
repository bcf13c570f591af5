"""`/api/v1/auth`: how Bacalhau's clients get the token that they send from then on.

A node without an API token asks them to sign something with a key of theirs, which proves nothing and lets
every program on this machine in. A node with a token asks for it.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from fastapi import APIRouter, Request, Response

from bacalhau_p2p.api.bodies.nodes import Authenticated, Credentials, Methods
from bacalhau_p2p.api.json_bodies import json_object, json_response, value_of
from bacalhau_p2p.api.openapi import takes
from bacalhau_p2p.errors import ApiError
from bacalhau_p2p.node import Node
from bacalhau_p2p.runtime.token_guesses import TokenGuesses

MAX_KEY_BITS = 8192
"""Of an RSA key whose signature is verified: what it takes grows with the cube."""
MAX_BODY = 16 * 1024
"""Bytes of a request to authenticate."""

CHALLENGE, ASK = "clientkey", "token"
_TOKEN_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"token": {"type": "string", "writeOnly": True}},
    "required": ["token"],
}


def authentication_routes(node: Node, guesses: TokenGuesses) -> APIRouter:
    routes = APIRouter()
    token = node.settings.api_token

    @routes.get("", response_model=Methods)
    async def list_methods() -> Response:
        """The ways to get a token: `token` asks for that of the node, `clientkey` for a signature."""
        if token:
            methods: dict[str, Any] = {ASK: {"type": "ask", "params": _TOKEN_SCHEMA}}
        else:
            phrase = base64.b64encode(node.peer_id.encode()).decode()
            methods = {CHALLENGE: {"type": "challenge", "params": {"InputPhrase": phrase}}}
        return json_response({"NextToken": "", "Methods": methods})

    @routes.post("/{method}", response_model=Authenticated, openapi_extra=takes(Credentials))
    async def authenticate(method: str, request: Request) -> Response:
        """Get a token in exchange for what a method wants, as JSON in base64 in `MethodData`."""
        if method != (ASK if token else CHALLENGE):
            raise ApiError(
                f"no way to authenticate is named {method}; GET /api/v1/auth lists them", status=404
            )
        given = _method_data(await json_object(request, most=MAX_BODY))
        if not token:
            _verify(given, node.peer_id.encode())
            return _allowed(node.peer_id)
        text = value_of(given, "token")
        if isinstance(text, str) and guesses.is_right(request.client, text.strip(), token, what="token"):
            return _allowed(token)
        return json_response({"Authentication": {"success": False, "reason": "this is not the API token"}})

    return routes


def _allowed(token: str) -> Response:
    return json_response({"Authentication": {"success": True, "token": token}})


def _method_data(body: dict[str, Any]) -> dict[str, Any]:
    try:
        data = json.loads(base64.b64decode(value_of(body, "MethodData") or "", validate=True))
    except (ValueError, TypeError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise ApiError("MethodData is not a JSON object in base64", status=400)
    return data


def _verify(given: dict[str, Any], phrase: bytes) -> None:
    """Raises ApiError unless the phrase is signed with the key that comes with it."""
    try:
        signature = base64.b64decode(value_of(given, "PhraseSignature"), validate=True)
        key = load_der_public_key(base64.b64decode(value_of(given, "PublicKey"), validate=True))
        if not isinstance(key, RSAPublicKey) or key.key_size > MAX_KEY_BITS:
            raise ApiError(f"the public key is no RSA key of at most {MAX_KEY_BITS} bits", status=403)
        key.verify(signature, phrase, PKCS1v15(), SHA256())
    except (InvalidSignature, UnsupportedAlgorithm, binascii.Error, TypeError, ValueError):
        raise ApiError("the phrase is not signed with the key that comes with it", status=403) from None
