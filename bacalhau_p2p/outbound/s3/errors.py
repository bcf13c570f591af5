"""boto3's errors as one error of ours, without URLs and credentials."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

_CAUSES = {
    "404": "not found",
    "NoSuchKey": "not found",
    "NoSuchVersion": "no such version",
    "NoSuchBucket": "no such bucket",
    "403": "access denied",
    "AccessDenied": "access denied",
    "412": "the object changed during the download",
    "PreconditionFailed": "the object changed during the download",
    "InvalidAccessKeyId": "invalid credentials",
    "SignatureDoesNotMatch": "invalid credentials",
    "ExpiredToken": "expired credentials",
}
_PERMANENT = frozenset(
    {"404", "NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NoSuchUpload", "PermanentRedirect"}
)
_CLIENT_CAUSES = {
    "NoCredentialsError": "this node has no credentials",
    "PartialCredentialsError": "this node's credentials are incomplete",
    "EndpointConnectionError": "connection failed",
    "ConnectTimeoutError": "no connection in time",
    "ReadTimeoutError": "no data in time",
    "ConnectionClosedError": "connection lost",
    "IncompleteReadError": "connection lost",
    "ResponseStreamingError": "connection lost",
    "SSLError": "invalid certificate",
    "ParamValidationError": "invalid request",
    "InvalidRegionError": "invalid region",
}
"""By the class names of botocore's errors. Their texts are not used: they contain URLs and more."""


class S3Error(Exception):
    """A request to S3 failed. The text is the cause; `permanent`: every node would get the same answer."""

    def __init__(self, cause: str, *, permanent: bool = False) -> None:
        super().__init__(cause)
        self.permanent = permanent


@contextmanager
def translated() -> Iterator[None]:
    """Errors of boto3 leave the block as S3Error."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _answered(str(error.response.get("Error", {}).get("Code", ""))) from None
    except BotoCoreError as error:
        kind = type(error).__name__
        raise S3Error(_CLIENT_CAUSES.get(kind, f"request failed ({kind})")) from None
    except Boto3Error as error:
        found = re.search(r"An error occurred \((\w+)\)", str(error))
        raise _answered(found[1] if found else "") from None


def _answered(code: str) -> S3Error:
    cause = _CAUSES.get(code, f"the server returned {code or 'an unknown error'}")
    return S3Error(cause, permanent=code in _PERMANENT)
