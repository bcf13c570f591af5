"""S3 and what speaks like it, through boto3 in threads of its own.

The node's credentials are only used for buckets that its settings name; all other reading is anonymous.
Only AWS itself, and endpoints that the settings name, are connected to.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.util import find_spec
from typing import Any, TypeVar

import trio

from bacalhau_p2p.errors import SettingsError

HURRY = 2.0
"""Seconds to connect, and without a byte, of a question that may go unanswered."""
DEFAULT_REGION = "us-east-1"
_GONE = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NoSuchUpload", "PermanentRedirect"})
_WORDS = {
    "404": "it does not exist",
    "NoSuchKey": "it does not exist",
    "NoSuchVersion": "it has no such version",
    "NoSuchBucket": "there is no such bucket",
    "403": "access is denied",
    "AccessDenied": "access is denied",
    "412": "it changed while it was fetched",
    "PreconditionFailed": "it changed while it was fetched",
    "InvalidAccessKeyId": "the credentials were not accepted",
    "SignatureDoesNotMatch": "the credentials were not accepted",
    "ExpiredToken": "the credentials have expired",
}
_T = TypeVar("_T")


class S3Fault(Exception):
    """S3 did not do what it was asked. The text is the cause; `gone` says that it is so for everybody."""

    def __init__(self, cause: str, *, gone: bool = False) -> None:
        super().__init__(cause)
        self.gone = gone


class S3Access:
    """Clients for the endpoints and buckets that this node's settings allow."""

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
        self.threads = trio.CapacityLimiter(4)

    @staticmethod
    def installed() -> bool:
        """Whether boto3, which the extra `s3` brings, is there."""
        return find_spec("boto3") is not None

    @property
    def writes(self) -> bool:
        """Whether there is any bucket for which the node's credentials are used."""
        return bool(self._buckets)

    def signs(self, bucket: str) -> bool:
        """Whether requests about this bucket bear the node's credentials."""
        return any(fnmatchcase(bucket, pattern) for pattern in self._buckets)

    def allows(self, endpoint: str) -> bool:
        """Whether jobs may name this endpoint; an empty one is AWS."""
        return not endpoint or _normal(endpoint) in self._endpoints

    @cached_property
    def hurried(self) -> S3Access:
        """The same for questions whose answer is worth a second or two: no second attempt, and threads of
        its own, so that nothing waits behind a server that does not answer."""
        return S3Access(
            endpoints=self._endpoints, buckets=self._buckets, idle=HURRY, attempts=1, session=self._session
        )

    async def run(self, call: Callable[..., _T], *args: object, abandon: bool = False) -> _T:
        """A blocking call in a thread, boto3's errors in our words.

        Raises S3Fault. Cancelled: returns once the call looks up, between pieces of data; with `abandon`
        at once, and the call goes on by itself.
        """
        return await trio.to_thread.run_sync(
            lambda: translated(call, *args), abandon_on_cancel=abandon, limiter=self.threads
        )

    def client(self, endpoint: str, region: str, bucket: str, *, anonymous: bool = False) -> Any:
        """A boto3 client, the same for the same choice. Blocks."""
        signed = not anonymous and self.signs(bucket)
        key = (_normal(endpoint), region or DEFAULT_REGION, signed)
        with self._mutex:
            if key not in self._clients:
                self._clients[key] = self._make(*key)
            return self._clients[key]

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


def translated(call: Callable[..., _T], *args: object) -> _T:
    """What `call` gives, boto3's errors as S3Fault."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call(*args)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "an unknown error"))
        cause = _WORDS.get(code, f"the server answered {code}")
        raise S3Fault(cause, gone=code in _GONE) from None
    except BotoCoreError as error:
        raise S3Fault(_in_words(error)) from None
    except Boto3Error as error:
        known = re.search(r"An error occurred \((\w+)\)", str(error))
        code = known[1] if known else "an unknown error"
        raise S3Fault(_WORDS.get(code, f"the server answered {code}"), gone=code in _GONE) from None


def _in_words(error: Exception) -> str:
    """botocore's errors by their names; their texts hold URLs, and some more than that."""
    words = {
        "NoCredentialsError": "this node has no credentials",
        "PartialCredentialsError": "this node's credentials are not complete",
        "EndpointConnectionError": "no connection can be had",
        "ConnectTimeoutError": "the server did not accept a connection in time",
        "ReadTimeoutError": "the server sent nothing for too long",
        "ConnectionClosedError": "the connection was lost",
        "IncompleteReadError": "the connection was lost",
        "ResponseStreamingError": "the connection was lost",
        "SSLError": "the server's certificate is not valid",
        "ParamValidationError": "the request is not valid",
        "InvalidRegionError": "the region is not valid",
    }
    return words.get(type(error).__name__, f"the request failed ({type(error).__name__})")


def _normal(endpoint: str) -> str:
    return endpoint.strip().rstrip("/").lower()
