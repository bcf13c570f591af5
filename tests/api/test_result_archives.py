from __future__ import annotations

import hmac
from types import SimpleNamespace

from bacalhau_p2p.api.result_archives import signature_of, signing_key
from bacalhau_p2p.identity.identity import Identity


def node(token: str, seed: bytes = bytes(32)) -> SimpleNamespace:
    return SimpleNamespace(settings=SimpleNamespace(api_token=token), identity=Identity.generate(seed))


def test_no_guess_of_the_token_can_be_tried_on_a_url_without_the_key_of_the_node():
    signed = signature_of("/x.tar.gz", signing_key(node("secret")))
    assert signed != hmac.digest(b"secret", b"GET /x.tar.gz", "sha256").hex()
    assert signed != signature_of("/x.tar.gz", signing_key(node("secret", seed=bytes(31) + b"1")))


def test_urls_are_valid_until_the_token_changes():
    signed = signature_of("/x.tar.gz", signing_key(node("secret")))
    assert signed == signature_of("/x.tar.gz", signing_key(node("secret")))
    assert signed != signature_of("/x.tar.gz", signing_key(node("another")))


def test_on_a_node_without_a_token_nothing_is_signed():
    assert signature_of("/x.tar.gz", signing_key(node(""))) == ""
