"""Which S3 endpoints and buckets this node uses, and with which credentials.

The node's credentials are used only for buckets that its settings name; all others are read anonymously.
The node connects only to AWS and to endpoints that the settings name.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from bacalhau_p2p.errors import Fault, SettingsError
from bacalhau_p2p.outbound.s3.bucket import S3Bucket
from bacalhau_p2p.runtime.threads import Threads

PROBE_IDLE = 2.0
"""Seconds to connect, and without a byte, for a request that may fail."""
DEFAULT_REGION = "us-east-1"
_THREADS = 4


class S3Access:
    """Buckets at the endpoints that this node's settings allow, and threads for their blocking calls."""

    def __init__(
        self,
        *,
        endpoints: Iterable[str] = (),
        buckets: Iterable[str] = (),
        idle: float = 30.0,
        attempts: int = 4,
        session: Any = None,
    ) -> None:
        """`endpoints` are allowed besides AWS; `buckets` are patterns (`results-*`) of the buckets for
        which the node's credentials are used. `idle`: seconds without a byte. `session`: a boto3.Session
        instead of one with the credentials of the environment.

        Raises SettingsError for an endpoint that is not a URL.
        """
        self._endpoints = frozenset(_normal(endpoint) for endpoint in endpoints)
        for endpoint in self._endpoints:
            if not re.fullmatch(r"https?://[^/\s@?#]+", endpoint):
                raise SettingsError(f"s3_endpoints: {endpoint!r} is not a URL of scheme and host")
        self._buckets = tuple(buckets)
        self._idle = idle
        self._attempts = attempts
        self._mutex = threading.Lock()
        self._clients: dict[tuple[str, str, bool], Any] = {}
        self._session = session
        self.threads = Threads(_THREADS)

    @staticmethod
    def installed() -> bool:
        """Whether boto3, which the extra `s3` brings, is installed."""
        return find_spec("boto3") is not None

    @property
    def can_write(self) -> bool:
        """Whether the node's credentials are used for any bucket."""
        return bool(self._buckets)

    def uses_credentials(self, bucket: str) -> bool:
        """Whether requests about this bucket are signed with the node's credentials."""
        return any(fnmatchcase(bucket, pattern) for pattern in self._buckets)

    def endpoint_faults(self, endpoint: str) -> list[Fault]:
        """A fault for an endpoint that is not allowed; an empty one is AWS."""
        if not endpoint or _normal(endpoint) in self._endpoints:
            return []
        return [Fault("Params.Endpoint", "is not allowed on this node", this_node_only=True)]

    @cached_property
    def for_probes(self) -> S3Access:
        """The same for requests that may fail: short timeouts, no second attempt, and threads of its own,
        so that nothing waits behind a server that does not answer."""
        return S3Access(
            endpoints=self._endpoints,
            buckets=self._buckets,
            idle=PROBE_IDLE,
            attempts=1,
            session=self._session,
        )

    def bucket(self, name: str, *, endpoint: str, region: str, anonymous: bool = False) -> S3Bucket:
        """A bucket, read with the node's credentials if the settings name it and not `anonymous`."""
        signed = not anonymous and self.uses_credentials(name)
        return S3Bucket(name, lambda: self._client(_normal(endpoint), region or DEFAULT_REGION, signed))

    def _client(self, endpoint: str, region: str, signed: bool) -> Any:
        """A boto3 client, the same one for the same choice. Blocks."""
        choice = (endpoint, region, signed)
        with self._mutex:
            if choice not in self._clients:
                self._clients[choice] = self._make(*choice)
            return self._clients[choice]

    def _make(self, endpoint: str, region: str, signed: bool) -> Any:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config

        if self._session is None:
            self._session = boto3.Session()
        config = Config(
            connect_timeout=self._idle,
            read_timeout=self._idle,
            retries={"mode": "standard", "total_max_attempts": self._attempts},
            max_pool_connections=8,
            s3={"addressing_style": "path"} if endpoint else None,
            signature_version=None if signed else UNSIGNED,
        )
        return self._session.client("s3", endpoint_url=endpoint or None, region_name=region, config=config)


def _normal(endpoint: str) -> str:
    return endpoint.strip().rstrip("/").lower()
