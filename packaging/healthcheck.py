"""Succeeds when the node of this container can do what it is meant to do; else prints why not."""

import http.client
import os
import sys

connection = http.client.HTTPConnection(
    "127.0.0.1", int(os.environ.get("BACALHAU_P2P_API_PORT", "1234")), timeout=4
)
token = os.environ.get("BACALHAU_P2P_API_TOKEN")
try:
    connection.request(
        "GET", "/api/v1/healthz", headers={"Authorization": f"Bearer {token}"} if token else {}
    )
    response = connection.getresponse()
    body = response.read().decode()
except OSError as error:
    sys.exit(f"the node does not respond: {error}")
if response.status != 200:
    sys.exit(body)
