"""The requests of Bacalhau v1.9's command line, as it writes them."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HEADERS = {
    "User-Agent": "Go-http-client/1.1",
    "Accept-Encoding": "gzip",
    "X-Bacalhau-Arch": "amd64",
    "X-Bacalhau-Build-Date": "1970-01-01 00:00:00 +0000 UTC",
    "X-Bacalhau-Build-Os": "linux",
    "X-Bacalhau-Git-Commit": "a" * 40,
    "X-Bacalhau-Git-Version": "v0.0.0-xxxxxxx",
    "X-Bacalhau-Instanceid": "00" * 32,
}
ENVELOPE: dict[str, Any] = {
    "Namespace": "",
    "Credential": {"Scheme": "Bearer", "Value": "...", "Params": None},
    "IdempotencyToken": "",
}


def job(engine: dict[str, Any], *, name: str = "", publisher: Any = None, **task: Any) -> dict[str, Any]:
    """A job as the command line submits it: with everything that a job has, empty or not."""
    main = {"Name": "main", "Engine": engine, "Publisher": publisher, "Resources": {}, "Timeouts": {}}
    return {
        "ID": "",
        "Name": name,
        "Namespace": "default",
        "Type": "batch",
        "Priority": 0,
        "Count": 1,
        "Constraints": None,
        "Meta": None,
        "Labels": {},
        "Tasks": [{**main, **task}],
        "State": {"StateType": "Undefined"},
        "Version": 0,
        "Revision": 0,
        "CreateTime": 0,
        "ModifyTime": 0,
    }


def docker(*command: str) -> dict[str, Any]:
    return {
        "Type": "docker",
        "Params": {
            "Entrypoint": None,
            "EnvironmentVariables": None,
            "Image": "busybox:latest",
            "Parameters": list(command),
            "WorkingDirectory": "",
        },
    }


def wasm(archive: bytes) -> dict[str, Any]:
    """`wasm run main.wasm`: the module is the only file of a gzipped TAR."""
    url = "data:application/gzip;base64," + base64.b64encode(archive).decode()
    source = {"Source": {"Type": "inline", "Params": {"URL": url}}, "Target": "main.wasm"}
    params = {"EntryModule": "main.wasm", "Entrypoint": "_start", "ImportModules": None, "Parameters": []}
    return job({"Type": "wasm", "Params": params}, InputSources=[source])


def submission(specification: dict[str, Any]) -> dict[str, Any]:
    return {**ENVELOPE, "Job": specification, "Force": False}


def signature(phrase: bytes, key: RSAPrivateKey) -> dict[str, Any]:
    """The body of `POST /api/v1/auth/clientkey`."""
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    data = {
        "PhraseSignature": base64.b64encode(key.sign(phrase, PKCS1v15(), SHA256())).decode(),
        "PublicKey": base64.b64encode(public).decode(),
    }
    packed = base64.b64encode(json.dumps(data).encode()).decode()
    return {"Namespace": "", "Credential": None, "Name": "clientkey", "MethodData": packed}
