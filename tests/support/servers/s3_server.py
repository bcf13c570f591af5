"""An S3 server in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

KEY_ID, SECRET = "AKIAEXAMPLE", "tell-nobody-0123456789"

SESSION = boto3.Session(aws_access_key_id=KEY_ID, aws_secret_access_key=SECRET, region_name="us-east-1")
"""Shared by all tests: a new session reads megabytes of descriptions of AWS."""


@contextmanager
def s3_server() -> Iterator[tuple[str, Any]]:
    """Its URL, and a client for it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        yield url, SESSION.client("s3", endpoint_url=url)
    finally:
        server.stop()
